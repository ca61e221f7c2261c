"""The table that redraws itself, for ``fleet up`` on a terminal and ``fleet status --watch``.

It reads through the control socket like every other face, also inside the supervisor's own process: one path of data.
The supervisor never waits for it: a terminal that is held (Ctrl-S) or gone stops the drawing and nothing else.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from supervisor.faces.client import ControlClient, ControlError
from supervisor.faces.table import fleet_view
from supervisor.snapshot import FleetSnapshot

_SHORTEST_PAUSE = 0.4  # at most 2.5 pictures a second
_LONGEST_PAUSE = 1.0  # up-times and ages move on without a change of state
_RECONNECT = 0.2

Pause = Callable[[float], None]


def snapshots(state_dir: Path, pause: Pause = time.sleep) -> Iterator[FleetSnapshot | None]:
    """Snapshots of the fleet, one for each change and at least one a second; None while no supervisor answers.
    Endless."""
    while True:
        with suppress(ControlError), ControlClient(state_dir) as client:
            snapshot = client.status()
            yield snapshot
            while True:
                pause(_SHORTEST_PAUSE)
                snapshot = client.status(after=snapshot.revision, timeout=_LONGEST_PAUSE - _SHORTEST_PAUSE)
                yield snapshot
        yield None
        pause(_RECONNECT)


def watch(state_dir: Path, console: Console) -> None:
    """Draw until interrupted."""
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        for snapshot in snapshots(state_dir):
            picture = _picture(
                snapshot, console, "no supervisor is running; waiting for one", "Ctrl-C ends the display"
            )
            live.update(picture, refresh=True)


def _picture(snapshot: FleetSnapshot | None, console: Console, otherwise: str, footer: str) -> RenderableType:
    if snapshot is None:
        return Text(otherwise, style="dim")
    return fleet_view(snapshot, console.width, console.height, footer)


class _Over(Exception):
    """Ends the display."""


class LiveView(threading.Thread):
    """Draws the fleet of ``state_dir`` from its own thread until ``close``; log lines scroll by above the table."""

    def __init__(self, state_dir: Path, console: Console) -> None:
        super().__init__(name="live-view", daemon=True)
        self._state_dir = state_dir
        self._console = console
        self._over = threading.Event()
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._seen = False

    def handler(self) -> logging.Handler:
        """Takes log lines without waiting for the terminal: they are queued and drawn here."""
        return _Queueing(self._lines)

    def run(self) -> None:
        with suppress(_Over, OSError, ValueError):  # OSError, ValueError: the terminal is gone
            self._draw()

    def _draw(self) -> None:
        with Live(
            console=self._console,
            auto_refresh=False,
            vertical_overflow="crop",
            redirect_stdout=False,  # other threads must not come to wait for the terminal
            redirect_stderr=False,
        ) as live:
            self._console.show_cursor(True)  # if this process is killed, its terminal keeps a cursor
            for snapshot in snapshots(self._state_dir, self._pause):
                self._print_lines()
                self._seen = self._seen or snapshot is not None
                otherwise = "stopping" if self._seen else "starting the supervisor"
                live.update(_picture(snapshot, self._console, otherwise, "Ctrl-C stops the fleet"), refresh=True)

    def _print_lines(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._console.print(Text(self._lines.get_nowait()))

    def _pause(self, seconds: float) -> None:
        if self._over.wait(seconds):
            self._print_lines()
            raise _Over

    def close(self, patience: float = 2.0) -> None:
        """End the display. Gives up after ``patience`` seconds when the terminal takes no more output."""
        self._over.set()
        self.join(patience)


class _Queueing(logging.Handler):
    def __init__(self, lines: queue.SimpleQueue[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(self.format(record))
