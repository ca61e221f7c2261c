"""``fleet status``."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, Json, NoColor
from supervisor.faces.context import place_of, screen_of

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes until Ctrl-C.")]


def status(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    watch: Watch = False,
    as_json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Show the state of every datasite.

    Ends with 0 when every datasite that is wanted up is ready, 1 when one is not, 3 when no supervisor runs.
    With --watch --json, one line of JSON for each change.

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
