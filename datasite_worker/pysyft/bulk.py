"""Large calls and answers: no text is made of them, and their memory goes back to the system.

Refuses nothing and changes no call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from syft.client.api import SyftAPICall

from datasite_worker.data import files

LARGE = 8 * 1024**2
"""Bytes of a body or an answer after which memory is given back."""
QUIET = 5.0
"""Seconds without another one, until then."""


def install() -> None:
    """Once in a process that serves; again is no harm."""
    SyftAPICall.__repr__ = _shown


def _shown(call: SyftAPICall) -> str:
    """PySyft makes a text of each call for a log that is off, and with it of all that is uploaded."""
    return f"SyftAPICall(path={call.path}, blocking={call.blocking})"


@dataclass(slots=True)
class Relief:
    """Gives memory back once after some large calls. Safe to use from any thread."""

    give_back: Callable[[], None] = files.give_back
    quiet: float = QUIET
    _timer: threading.Timer | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def after(self, size: int) -> None:
        """A call or an answer of so many bytes is over."""
        if size < LARGE:
            return
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = threading.Timer(self.quiet, self.give_back)
            self._timer.daemon = True
            self._timer.start()
