"""Watches what must lie in the state folder while a supervisor runs: its lock, its sockets and the folders around them.

Somebody may remove them, or the whole folder. ``Doors`` looks every two seconds, in its own thread, and only tells; the
engine's thread makes them again, because it owns the sockets.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

_PERIOD = 2.0
_CLOSING = 1.0


def identity(path: Path) -> tuple[int, int] | None:
    """Which file is there, whatever its name is; None: there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Doors:
    """``tell`` is called while one of the files of ``keep`` is gone, or another one stands in its place."""

    def __init__(self, tell: Callable[[], None], period: float = _PERIOD) -> None:
        self._tell = tell
        self._period = period
        self._kept: dict[Path, tuple[int, int] | None] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="doors", daemon=True)
        self._thread.start()

    def keep(self, *paths: Path) -> None:
        """These files as they are now."""
        self._kept = {path: identity(path) for path in paths}

    def lost(self) -> list[Path]:
        """Those that are no longer what they were."""
        return [path for path, kept in self._kept.items() if kept is None or identity(path) != kept]

    def _run(self) -> None:
        while not self._over.wait(self._period):
            if self.lost():
                self._tell()

    def close(self) -> None:
        self._over.set()
        self._thread.join(_CLOSING)
