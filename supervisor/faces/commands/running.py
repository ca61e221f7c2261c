"""``fleet up`` and ``fleet down``."""

from __future__ import annotations

from typing import Annotated

import typer

from supervisor.faces.commands.arguments import FleetFile, FleetFileArgument, NoColor, NoWait, Timeout
from supervisor.faces.context import fleet_file, load_config, place_of, screen_of, talking_to
from supervisor.faces.faults import Exit, Fault

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; return when all is ready.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to what reset: true removes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No table and no log lines; fleet.log has them.")]


def up(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFile = None,
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
    from supervisor.faces import bringing

    config = load_config(fleet_file(context, path, file))
    bringing.refuse_second(config)
    reset = bringing.confirm_reset(config, yes=yes)
    screen = screen_of(context, no_color=no_color)
    if detach:
        bringing.serve_detached(config, timeout, screen)
    else:
        bringing.serve_here(config, reset, screen, quiet=quiet)


def down(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFile = None,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Stop all datasites, then the supervisor.

    Datasites that a killed supervisor left behind are stopped too. Waits up to --timeout (60 s).

    \b
    Examples:
      fleet down
      fleet down fleet.yaml --no-wait
    """
    from supervisor.faces import bringing

    place, screen = place_of(context, path, file), screen_of(context)
    try:
        with talking_to(place) as client:
            bringing.bring_down(client, None if no_wait else timeout, screen)
    except Fault as fault:
        if fault.exit_code != Exit.NOT_RUNNING or not bringing.stop_leftovers(load_config(place.path), screen):
            raise
