"""``fleet status``."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, Json, NoColor
from supervisor.faces.context import place_of, screen_of

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Show every change until Ctrl-C.")]


def status(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    watch: Watch = False,
    as_json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Show the state of every datasite.

    Exits with 0 if every datasite that should run is ready, with 1 if one is not, with 3 if no supervisor is running.
    With --watch --json, each change is one line of JSON.

    \b
    Examples:
      fleet status
      fleet status --watch
      fleet status --json | jq '.datasites[] | select(.ready | not) | .name'
    """
    from supervisor.faces.status import show, show_changes

    place, screen = place_of(context, path, file), screen_of(context, no_color=no_color)
    if watch:
        show_changes(place, screen, as_json=as_json)
    else:
        raise typer.Exit(show(place, screen, as_json=as_json))
