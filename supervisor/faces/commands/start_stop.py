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

    Returns when they are ready, or with what keeps them from it; waits up to --timeout (150 s).

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
    """Stop datasites; they stay down until started again. fleet down stops everything.

    Returns when they are down; waits up to --timeout (150 s).

    \b
    Examples:
      fleet stop detroit_line_beta
    """
    _request(context, OperatorRequest.STOP, names, place_of(context, file), None if no_wait else timeout)


All = Annotated[bool, typer.Option("--all", help="All datasites (the embedded dashboard goes on).")]
Rolling = Annotated[
    bool, typer.Option("--rolling", help="One after another, each when those before it are ready again.")
]
MaxUnavailable = Annotated[
    int,
    typer.Option("--max-unavailable", min=1, metavar="N", help="With --rolling: so many at once.", show_default=True),
]
WaitTraining = Annotated[
    float,
    typer.Option(
        "--wait-training",
        min=0.0,
        metavar="SECONDS",
        help="With --rolling: how long a line that trains is waited for.",
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

    Returns when they are ready again, or with what keeps them from it; waits up to --timeout (150 s; with --rolling
    for each). A rolling restart stops at the first datasite that does not come back, and waits for trainings.

    \b
    Examples:
      fleet restart detroit_line_beta
      fleet restart --all
      fleet restart --all --rolling --wait-training 600
    """
    if every and names:
        raise Fault("either --all or names, not both", Exit.WRONG_USE)
    place = place_of(context, file)
    if not rolling:
        _request(context, OperatorRequest.RESTART, names, place, None if no_wait else timeout, every=every)
        return
    if no_wait:
        raise Fault("a rolling restart waits by its nature: --no-wait does not go with --rolling", Exit.WRONG_USE)
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
        raise _which(OperatorRequest.RESTART, place)
    screen = screen_of(context)
    with talking_to(place) as client:
        chosen = rolling_restart.chosen(client, names)
        with screen.bar("rolling restart", len(chosen)) as advance:
            progress = rolling_restart.Progress(screen.say, lambda line: click.echo(line, err=True), advance)
            done = rolling_restart.roll(client, chosen, rolling_restart.Pace(*limits), progress)
    if not done:
        raise typer.Exit(Exit.NOT_DONE)


def _which(request: OperatorRequest, place: FleetLocation) -> Fault:
    return Fault(f"{request} which datasites? There are: {', '.join(map(clean, place.names))}", Exit.WRONG_USE)


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
        raise _which(request, place)
    if not _ask_and_follow(place, request, names, timeout, screen_of(context)):
        raise typer.Exit(Exit.NOT_DONE)


def _ask_and_follow(
    place: FleetLocation, request: OperatorRequest, names: list[str] | None, timeout: float | None, screen: Screen
) -> bool:
    """Whether it came about. ``names`` None: every datasite; ``timeout`` None: do not wait."""
    from supervisor.faces.follow import Telling, ask, follow

    with talking_to(place) as client:
        asked = ask(client, names, request)
        if timeout is None:
            for one in asked:
                screen.say(f"{clean(one.name)}: {request} asked for")
            return True
        with screen.progress(_DOING[request]) as progress:
            telling = Telling(screen.say, lambda line: click.echo(line, err=True), progress)
            return follow(client, asked, timeout, telling)
