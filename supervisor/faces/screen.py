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
    """``no_color`` adds to what NO_COLOR says. ``live``: somebody looks at a terminal that can redraw."""

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
        """One line of result, on standard output at once; above a live display if there is one."""
        if self.live:
            self.console.print(line, soft_wrap=True)
        else:
            click.echo(line)

    @contextmanager
    def progress(self, doing: str) -> Iterator[Callable[[str], None]]:
        """A spinner with the elapsed time while something is waited for; what it yields tells it the details."""
        if not self.live:
            yield _ignore
            return
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=self.console, transient=True) as shown:
            task = shown.add_task(doing)
            yield lambda details: shown.update(task, description=f"{doing} {details}"[: self.console.width - 20])


def _ignore(_: str) -> None:
    """There is nobody to show it to."""


def tolerate_narrow_encodings() -> None:
    """A terminal that cannot show a sign gets a question mark, not the operator a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
