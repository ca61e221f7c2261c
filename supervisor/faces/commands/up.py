"""``fleet up``."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, NoColor, Timeout
from supervisor.faces.context import fleet_file, load_config, screen_of

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; return when all is ready.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to what reset: true removes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No table and no log lines; fleet.log has them.")]


def up(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    detach: Detach = False,
    yes: Yes = False,
    quiet: Quiet = False,
    timeout: Timeout = 300.0,
    no_color: NoColor = False,
) -> None:
    """Start the fleet and keep it running.

    On a terminal a live table is shown; otherwise log lines. Ctrl-C stops all datasites in order, a second one
    kills what is left. --timeout (300 s) is for --detach.

    \b
    Examples:
      fleet up
      fleet up fleet.yaml --detach
      fleet up --yes            agree to what reset: true removes
    """
    from supervisor.faces.up import confirm_reset, refuse_second, serve_detached, serve_here

    config = load_config(fleet_file(context, path, file))
    refuse_second(config)
    reset = confirm_reset(config, yes=yes)
    screen = screen_of(context, no_color=no_color)
    if detach:
        serve_detached(config, timeout, screen)
    else:
        serve_here(config, reset, screen, quiet=quiet)
