"""Asks disks that may never answer, as one behind a network may: each question has a thread of its own, and a limit.

A call that hangs cannot be ended, only left alone. So a dataset whose last question still hangs is not asked again.
Knows nothing of files: it runs what it is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from datasite_worker.data.files import Blocked

T = TypeVar("T")

LOOK = 10.0
"""Seconds to wait for a file's time and size."""
READ = 120.0
"""Seconds to wait for its content."""
SILENT = "its disk does not answer"


@dataclass(slots=True)
class _Question:
    asks: Callable[[], Any]
    answer: Any = None
    error: BaseException | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        try:
            self.answer = self.asks()
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for it
            self.error = error
        self.over.set()


class Disks:
    """The open questions, by dataset."""

    def __init__(self) -> None:
        self._open: dict[str, _Question] = {}

    def ask(self, name: str, asks: Callable[[], T], limit: float) -> T:
        """What ``asks`` gives or raises. Raises Blocked where that takes longer, or the last question still hangs."""
        earlier = self._open.get(name)
        if earlier is not None and not earlier.over.is_set():
            raise Blocked(SILENT)
        question = self._open[name] = _Question(asks)
        threading.Thread(target=question.ask, name=f"disk of {name}", daemon=True).start()
        if not question.over.wait(limit):
            raise Blocked(SILENT)
        del self._open[name]
        if question.error is not None:
            raise question.error
        answer: T = question.answer
        return answer
