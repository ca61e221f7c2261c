"""``fleet up``."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, NoColor, Timeout
from supervisor.faces.context import fleet_file, load_config, screen_of

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; return when all are ready.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to remove the state, for reset: true.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no table and no log; fleet.log has it.")]


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

    Shows a live table on a terminal, and the log elsewhere. Ctrl-C stops all datasites in order; a second Ctrl-C
    kills the remaining processes. --timeout (300 s) applies to --detach.

    \b
    Examples:
      fleet up
      fleet up fleet.yaml --detach
      fleet up --yes            agree to remove state (reset: true)
    """
    from supervisor.faces.up import (
        confirm_reset,
        leave_current_folder,
        refuse_empty_state,
        refuse_second,
        serve_detached,
        serve_here,
    )

    if not detach:
        leave_current_folder()
    config = load_config(fleet_file(context, path, file))
    refuse_second(config)
    refuse_empty_state(config)
    reset = confirm_reset(config, yes=yes)
    screen = screen_of(context, no_color=no_color)
    if detach:
        serve_detached(config, timeout, screen)
    else:
        serve_here(config, reset, screen, quiet=quiet)
