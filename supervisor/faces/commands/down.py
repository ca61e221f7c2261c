"""``fleet down``."""

from __future__ import annotations

import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, NoWait, Timeout
from supervisor.faces.context import load_config, place_of, screen_of, talking_to
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.location import FleetLocation
from supervisor.spec import FleetConfig


def _as_known(place: FleetLocation) -> FleetConfig:
    """The fleet as far as it is known: an error in the file, or a missing secret, must not prevent `fleet down`."""
    try:
        return load_config(place.path)
    except Fault:
        return place.unjudged()


def down(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Stop all datasites, then the supervisor.

    It also stops datasites that a killed supervisor left behind. Waits up to --timeout (60 s).

    \b
    Examples:
      fleet down
      fleet down fleet.yaml --no-wait
    """
    from supervisor.faces.down import bring_down, stop_leftovers

    place, screen = place_of(context, path, file), screen_of(context)
    try:
        with talking_to(place) as client:
            bring_down(client, None if no_wait else timeout, screen)
    except Fault as fault:
        if fault.exit_code != Exit.NOT_RUNNING or not stop_leftovers(_as_known(place), screen):
            raise
