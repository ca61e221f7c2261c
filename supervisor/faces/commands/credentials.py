"""``fleet credentials``."""

from __future__ import annotations

import json
from typing import Annotated

import click
import typer

from supervisor.faces.commands.arguments import FleetFileOption, Json
from supervisor.faces.context import place_of
from supervisor.faces.faults import Exit, Fault, unknown_name

DatasiteName = Annotated[str | None, typer.Argument(metavar="NAME", help="The datasite.", show_default=False)]


def credentials(
    context: typer.Context, name: DatasiteName = None, file: FleetFileOption = None, as_json: Json = False
) -> None:
    """Show the ADMIN login of a datasite.

    The datasite need not run.

    \b
    Examples:
      fleet credentials detroit_line_alpha
      fleet credentials detroit_line_alpha --json | jq -r .password
    """
    from supervisor.faces import logins

    place = place_of(context, file)
    names = list(place.ports)
    if name is None:
        raise Fault(f"Name a datasite. Known: {', '.join(names)}", Exit.WRONG_USE)
    if name not in names:
        raise unknown_name(name, names)
    found = logins.read(place.state_dir, name)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text(place.path))
