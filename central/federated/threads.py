"""The real ``Outside`` of a federation: the monotonic clock, and a thread for each datasite that trains."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from central.federated.rounds import RoundFact


class Threads:
    """Runs work in daemon threads, so that the program can exit while one still waits for a slow datasite."""

    def __init__(self) -> None:
        self._facts: queue.SimpleQueue[RoundFact] = queue.SimpleQueue()

    def now(self) -> float:
        return time.monotonic()

    def begin(self, work: Callable[[], RoundFact]) -> None:
        threading.Thread(target=lambda: self._facts.put(work()), name="line", daemon=True).start()

    def wait(self, until: float) -> RoundFact | None:
        try:
            return self._facts.get(timeout=max(0.0, until - self.now()))
        except queue.Empty:
            return None
