"""``fleet credentials``."""

from __future__ import annotations

import json

import click
import typer

from supervisor.faces.commands.arguments import DatasiteName, FleetFileOption, Json
from supervisor.faces.context import one_datasite, place_of


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
    found = logins.read(place.state_dir, one_datasite(place, name))
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text(place.path))
