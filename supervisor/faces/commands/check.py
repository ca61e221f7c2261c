"""``fleet check``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import click
import typer

from supervisor.faces.commands.arguments import DatasiteName, FleetFileOption, Json
from supervisor.faces.context import one_datasite, place_of
from supervisor.faces.faults import Exit

Save = Annotated[
    Path | None, typer.Option("--salvage", metavar="FILE", help="Save what is readable of its database in a new FILE.")
]


def check(
    context: typer.Context,
    name: DatasiteName = None,
    file: FleetFileOption = None,
    salvage: Save = None,
    as_json: Json = False,
) -> None:
    """Check whether data of a datasite is damaged or missing.

    Changes nothing of the datasite, which may run. Exits with 1 if something is wrong. --salvage copies each row that
    can be read into a new database.

    \b
    Examples:
      fleet check detroit_line_alpha
      fleet check detroit_line_alpha --salvage /srv/saved.db
    """
    from supervisor.faces import checkup

    place = place_of(context, file)
    found = checkup.look(place.state_dir, one_datasite(place, name))
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text())
    if salvage is not None:
        click.echo(checkup.save(found, salvage), err=as_json)
    if found.problems:
        raise typer.Exit(Exit.NOT_DONE)
