"""``fleet start``, ``fleet stop`` and ``fleet restart``."""

from __future__ import annotations

from typing import Annotated

import click
import typer

from supervisor.faces.commands.arguments import FleetFileOption, Names, NoWait, Timeout
from supervisor.faces.context import place_of, screen_of, talking_to
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.formatting import clean
from supervisor.faces.location import FleetLocation
from supervisor.faces.screen import Screen
from supervisor.record import OperatorRequest

_DOING = {
    OperatorRequest.START: "starting",
    OperatorRequest.STOP: "stopping",
    OperatorRequest.RESTART: "restarting",
}


def start(
    context: typer.Context,
    names: Names = None,
    file: FleetFileOption = None,
    no_wait: NoWait = False,
    timeout: Timeout = 150.0,
) -> None:
    """Start datasites that are down, waiting or quarantined.

    Waits up to --timeout (150 s) until they are ready, and says why one is not.

    \b
    Examples:
      fleet start detroit_line_beta
      fleet start detroit_line_alpha detroit_line_beta --no-wait
    """
    _request(context, OperatorRequest.START, names, place_of(context, file), None if no_wait else timeout)


def stop(
    context: typer.Context,
    names: Names = None,
    file: FleetFileOption = None,
    no_wait: NoWait = False,
    timeout: Timeout = 150.0,
) -> None:
    """Stop datasites. They stay down until started again.

    Waits up to --timeout (150 s) until they are down. fleet down stops everything.

    \b
    Examples:
      fleet stop detroit_line_beta
    """
    _request(context, OperatorRequest.STOP, names, place_of(context, file), None if no_wait else timeout)


All = Annotated[bool, typer.Option("--all", help="Restart all datasites, not the dashboard.")]
Rolling = Annotated[bool, typer.Option("--rolling", help="Restart one after another, each when the last is ready.")]
MaxUnavailable = Annotated[
    int,
    typer.Option("--max-unavailable", min=1, metavar="N", help="With --rolling: restart N at once.", show_default=True),
]
WaitTraining = Annotated[
    float,
    typer.Option(
        "--wait-training",
        min=0.0,
        metavar="SECONDS",
        help="With --rolling: wait this long for a training to end.",
        show_default=True,
    ),
]


def restart(
    context: typer.Context,
    names: Names = None,
    file: FleetFileOption = None,
    every: All = False,
    rolling: Rolling = False,
    max_unavailable: MaxUnavailable = 1,
    wait_training: WaitTraining = 300.0,
    no_wait: NoWait = False,
    timeout: Timeout = 150.0,
) -> None:
    """Stop datasites in order and start them again. Their data stays.

    Waits up to --timeout (150 s; with --rolling, for each) until they are ready, and says why one is not.
    A rolling restart waits for trainings, and stops at the first datasite that does not become ready.

    \b
    Examples:
      fleet restart detroit_line_beta
      fleet restart --all
      fleet restart --all --rolling --wait-training 600
    """
    if every and names:
        raise Fault("--all cannot be combined with names", Exit.WRONG_USE)
    place = place_of(context, file)
    if not rolling:
        _request(context, OperatorRequest.RESTART, names, place, None if no_wait else timeout, every=every)
        return
    if no_wait:
        raise Fault("--no-wait cannot be combined with --rolling", Exit.WRONG_USE)
    _roll(context, place, names, every=every, limits=(max_unavailable, wait_training, timeout))


def _roll(
    context: typer.Context,
    place: FleetLocation,
    names: list[str] | None,
    *,
    every: bool,
    limits: tuple[int, float, float],
) -> None:
    from supervisor.faces import rolling_restart

    if not names and not every:
        raise _unnamed(OperatorRequest.RESTART, place)
    screen = screen_of(context)
    with talking_to(place) as client:
        chosen = rolling_restart.chosen(client, names)
        with screen.bar("rolling restart", len(chosen)) as advance:
            progress = rolling_restart.Progress(screen.say, lambda line: click.echo(line, err=True), advance)
            done = rolling_restart.roll(client, chosen, rolling_restart.Pace(*limits), progress)
    if not done:
        raise typer.Exit(Exit.NOT_DONE)


def _unnamed(request: OperatorRequest, place: FleetLocation) -> Fault:
    every = ", or use --all" if request is OperatorRequest.RESTART else ""
    known = ", ".join(map(clean, place.names))
    return Fault(f"Name the datasites to {request}{every}. Known: {known}", Exit.WRONG_USE)


def _request(
    context: typer.Context,
    request: OperatorRequest,
    names: list[str] | None,
    place: FleetLocation,
    timeout: float | None,
    *,
    every: bool = False,
) -> None:
    if not names and not every:
        raise _unnamed(request, place)
    if not _ask_and_follow(place, request, names, timeout, screen_of(context)):
        raise typer.Exit(Exit.NOT_DONE)


def _ask_and_follow(
    place: FleetLocation, request: OperatorRequest, names: list[str] | None, timeout: float | None, screen: Screen
) -> bool:
    """Whether it succeeded. ``names`` None: every datasite; ``timeout`` None: do not wait."""
    from supervisor.faces.follow import Telling, ask, follow

    with talking_to(place) as client:
        requests = ask(client, names, request)
        if timeout is None:
            for one in requests:
                screen.say(f"{clean(one.name)}: {request} requested")
            return True
        with screen.progress(_DOING[request]) as progress:
            telling = Telling(screen.say, lambda line: click.echo(line, err=True), progress)
            return follow(client, requests, timeout, telling)
