"""``fleet status``, ``fleet logs``, ``fleet gpus``: what is, and what was said."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from supervisor.faces.commands.arguments import FleetFile, FleetFileArgument, Json, NoColor
from supervisor.faces.context import place_of, screen_of
from supervisor.faces.faults import Exit, Fault, unknown_name
from supervisor.faces.words import clean_log

SUPERVISOR_LOG = "fleet"

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Go on showing changes until Ctrl-C.")]


def status(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFile = None,
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
    from supervisor.faces import showing

    place, screen = place_of(context, path, file), screen_of(context, no_color=no_color)
    if watch:
        showing.watch(place, screen, as_json=as_json)
    else:
        raise typer.Exit(showing.status(place, screen, as_json=as_json))


Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is appended, also after rotation.")]
Lines = Annotated[
    int, typer.Option("--lines", "-n", min=0, metavar="N", help="How many last lines (20).", show_default=False)
]
Output = Annotated[bool, typer.Option("--output", help="The raw output of the process instead of its log.")]
LongFleetFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The fleet.yaml; here -f is --follow.")
]
LogName = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A datasite, dashboard, or fleet: the supervisor.", show_default=False),
]


def logs(
    context: typer.Context,
    name: LogName = None,
    follow: Follow = False,
    lines: Lines = 20,
    output: Output = False,
    file: LongFleetFile = None,
) -> None:
    """Show the log of a datasite, running or not.

    The name fleet stands for the supervisor's own log. Here -f follows; name the fleet.yaml with --file, or with -f
    before the command.

    \b
    Examples:
      fleet logs detroit_line_beta -n 100
      fleet logs detroit_line_beta -f
      fleet logs detroit_line_beta --output    what it wrote outside its log
      fleet logs fleet
    """
    place = place_of(context, file)
    names = [*place.names, SUPERVISOR_LOG]
    if name is None:
        raise Fault(f"which log? There are: {', '.join(names)}", Exit.WRONG_USE)
    if name not in names:
        raise unknown_name(name, names)
    _show_log(place.log_dir / f"{name}.{'out' if output else 'log'}", lines, follow=follow)


def _show_log(path: Path, lines: int, *, follow: bool) -> None:
    from supervisor.faces import logfiles

    text, begin = _last_lines(path, lines, may_be_absent=follow)
    _write(text)
    if follow:
        for text in logfiles.follow(path, begin=begin):
            _write(text)


def _last_lines(path: Path, lines: int, *, may_be_absent: bool) -> tuple[str, int]:
    from supervisor.faces import logfiles

    try:
        return logfiles.last_lines(path, lines)
    except FileNotFoundError as error:
        if may_be_absent:
            return "", 0
        raise Fault(f"there is no {path} yet", next_step="fleet status") from error
    except OSError as error:
        raise Fault(f"{path} cannot be read: {error.strerror}") from error


def _write(text: str) -> None:
    """To a terminal without control characters: user code writes into these files, and a terminal obeys them."""
    click.echo(clean_log(text) if sys.stdout.isatty() else text, nl=False)


EventsName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A datasite, dashboard, or fleet: the fleet as a whole.", show_default=False),
]


def events(
    context: typer.Context,
    name: EventsName = None,
    follow: Follow = False,
    lines: Lines = 20,
    as_json: Json = False,
    file: LongFleetFile = None,
) -> None:
    """Show what happened, with its cause: starts, ends, probes that failed, reloads, quarantines.

    Works with and without a supervisor. With --json, one object a line. Here -f follows; name the fleet.yaml with
    --file, or with -f before the command.

    \b
    Examples:
      fleet events
      fleet events detroit_line_beta -n 100
      fleet events -f --json
    """
    from supervisor.faces import chronicle

    place = place_of(context, file)
    known = [*place.names, SUPERVISOR_LOG]
    # A line that is no longer in fleet.yaml has a history too.
    if name is not None and name not in known and not chronicle.last(place.state_dir, name, 1):
        raise unknown_name(name, known)
    show = json.dumps if as_json else chronicle.in_words
    shown, end = chronicle.last_and_end(place.state_dir, name, lines)
    for event in shown:
        click.echo(show(event))
    if follow:
        for event in chronicle.follow(place.state_dir, name, begin=end):
            click.echo(show(event))


Name = Annotated[str | None, typer.Argument(metavar="NAME", help="A datasite.", show_default=False)]


def credentials(context: typer.Context, name: Name = None, file: FleetFile = None, as_json: Json = False) -> None:
    """Show the ADMIN login of a datasite, running or not.

    \b
    Examples:
      fleet credentials detroit_line_alpha
      fleet credentials detroit_line_alpha --json | jq -r .password
    """
    from supervisor.faces import logins

    place = place_of(context, file)
    names = list(place.ports)
    if name is None:
        raise Fault(f"whose credentials? There are: {', '.join(names)}", Exit.WRONG_USE)
    if name not in names:
        raise unknown_name(name, names)
    found = logins.read(place.state_dir, name)
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else found.to_text(place.path))


def gpus(context: typer.Context, path: FleetFileArgument = None, file: FleetFile = None, as_json: Json = False) -> None:
    """Show the GPUs of this host: memory, health, who holds which, and why.

    Works with and without a supervisor; without one it shows who had which at last. Ends with 1 when the driver
    cannot be asked.

    \b
    Examples:
      fleet gpus
      fleet gpus --json | jq '.cards[] | select(.usable | not) | .trouble'
    """
    from supervisor.faces import cards

    picture = cards.take(place_of(context, path, file))
    click.echo(json.dumps(picture.to_dict(), indent=2) if as_json else picture.to_text())
    if picture.seen.trouble:
        raise typer.Exit(Exit.NOT_DONE)
