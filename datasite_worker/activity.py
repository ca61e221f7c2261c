"""Records which of the centre's functions run now, and when one last completed. Runs nothing itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fleet_common.moments import now_iso

_MOST_NAMES = 32
_LONGEST_NAME = 100

Completed = Callable[[], None]


class Activity:
    """``changed`` is called, in the executing thread, whenever a function begins or ends."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._running: list[str] = []
        self._last_completion: str | None = None

    def told(self) -> dict[str, Any]:
        """The fields of the status document and of the heartbeat."""
        with self._lock:
            return {
                "active_experiments": self._running[:_MOST_NAMES],
                "last_training_completion": self._last_completion,
            }

    @contextmanager
    def running(self, name: str) -> Iterator[Completed]:
        """``name`` counts as running inside. Call the yielded function when it completed without an error."""
        shown = shortened(name)
        with self._lock:
            self._running.append(shown)
        self._changed()
        try:
            yield self._complete
        finally:
            with self._lock:
                self._running.remove(shown)
            self._changed()

    def _complete(self) -> None:
        with self._lock:
            self._last_completion = now_iso()


def shortened(name: str) -> str:
    """The centre chooses the names, so their length is limited here to keep heartbeats small."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
