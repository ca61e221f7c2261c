"""``fleet logs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from supervisor.faces.commands.arguments import SUPERVISOR_LOG, Follow, LastLines, LongFleetFile
from supervisor.faces.context import place_of
from supervisor.faces.faults import Exit, Fault, unknown_name
from supervisor.faces.formatting import clean_log

RawOutput = Annotated[bool, typer.Option("--output", help="Show the raw output, not the log.")]
LogName = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A datasite, dashboard, or fleet (the supervisor).", show_default=False),
]


def logs(
    context: typer.Context,
    name: LogName = None,
    follow: Follow = False,
    lines: LastLines = 20,
    output: RawOutput = False,
    file: LongFleetFile = None,
) -> None:
    """Show the log of a datasite.

    The datasite need not run. The name fleet means the supervisor's log. Here -f means --follow: name the fleet.yaml
    with --file, or with -f before the command.

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
        raise Fault(f"Name a log. Known: {', '.join(names)}", Exit.WRONG_USE)
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
