"""Exit codes, and ``Fault``: how a command fails. Both are promises to scripts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import IO, Any

import click

from fleet_common import folders
from supervisor.faces.formatting import clean, clean_log, near


class Exit(IntEnum):
    """The exit codes of every ``fleet`` command."""

    OK = 0
    NOT_DONE = 1
    WRONG_USE = 2
    NOT_RUNNING = 3
    UNKNOWN_NAME = 4
    ALREADY_RUNNING = 5
    INTERRUPTED = 130


EXIT_CODES = """\b
Exit codes:
  0    success; for status: every datasite that should run is ready
  1    failure; for status: a datasite that should run is not ready
  2    error in fleet.yaml or in the command line
  3    no supervisor is running
  4    unknown datasite
  5    another supervisor is running
  130  interrupted (Ctrl-C)"""


class Fault(click.ClickException):
    """What went wrong, in words for an operator, with the exit code and the next step."""

    def __init__(self, message: str, code: Exit = Exit.NOT_DONE, *, next_step: str = "") -> None:
        super().__init__(clean_log(message))
        self.exit_code = int(code)
        self.next_step = clean(next_step)

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"Error: {self.message}", file=file, err=file is None)
        if self.next_step:
            click.echo(f"  next step: {self.next_step}", file=file, err=file is None)


def unknown_name(name: str, names: Iterable[str], suggestions: Iterable[str] = ()) -> Fault:
    """The fault for an unknown name: similar names, and all names."""
    known = list(names)
    meant = list(suggestions) or near(name, known)
    lines = [f"no datasite named {clean(name)!r}"]
    if meant:
        lines.append(f"  did you mean: {', '.join(map(clean, meant))}?")
    lines.append(f"  known: {', '.join(map(clean, known)) or 'none'}")
    return Fault("\n".join(lines), Exit.UNKNOWN_NAME)


def unsafe(error: folders.Unsafe) -> Fault:
    return Fault(
        f"another user may control the fleet's files; nothing was started or stopped: {error.reason}",
        Exit.WRONG_USE,
        next_step=error.next_step,
    )
