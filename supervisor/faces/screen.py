"""Where a command writes: colours and live displays on a terminal, plain and whole lines everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass(frozen=True)
class Screen:
    """``no_color`` has the effect of NO_COLOR. ``live``: the output is a terminal that can redraw."""

    no_color: bool = False

    @cached_property
    def live(self) -> bool:
        return sys.stdout.isatty() and not self.console.is_dumb_terminal

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(no_color=True if self.no_color else None, highlight=False, markup=False, emoji=False)

    def show(self, rich_view: RenderableType) -> None:
        self.console.print(rich_view)

    def say(self, line: str) -> None:
        """Print one line on standard output at once; above a live display if there is one."""
        if self.live:
            self.console.print(line, soft_wrap=True)
        else:
            click.echo(line)

    @contextmanager
    def progress(self, doing: str) -> Iterator[Callable[[str], None]]:
        """A spinner with the elapsed time during a wait; call what it yields with the details."""
        if not self.live:
            yield _ignore
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as shown:
            task = shown.add_task(doing)
            yield lambda details: shown.update(task, description=f"{doing} {details}"[: self.console.width - 20])

    @contextmanager
    def bar(self, doing: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """A progress bar; call what it yields with how many of ``total`` are done, and the details.

        Without a terminal each new detail is one line on standard error.
        """
        if not self.live:
            last = [""]
            yield lambda _done, details: _once(details, last)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), text)
        with Progress(*columns, console=self.console, transient=True) as shown:
            task = shown.add_task(doing, total=total)
            yield lambda done, details: shown.update(task, completed=done, description=details or doing)


def _once(details: str, last: list[str]) -> None:
    if "training" in details and details.split(" (", maxsplit=1)[0] != last[0]:
        click.echo(f"waiting: {details}", err=True)
        last[0] = details.split(" (", maxsplit=1)[0]


def _ignore(_: str) -> None:
    """Nobody watches."""


def tolerate_narrow_encodings() -> None:
    """Print a question mark for a character that the terminal cannot show, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
