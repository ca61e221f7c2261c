"""The real ``Outside`` of a federation: the monotonic clock, and a thread for each datasite that trains."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from central.federated.rounds import RoundFact


class Threads:
    """Runs work in daemon threads, so that the program can exit while one still waits for a slow datasite."""

    def __init__(self) -> None:
        self._facts: queue.SimpleQueue[RoundFact] = queue.SimpleQueue()

    def now(self) -> float:
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def begin(self, work: Callable[[], RoundFact]) -> None:
        threading.Thread(target=lambda: self._facts.put(work()), name="line", daemon=True).start()

    def wait(self, until: float) -> RoundFact | None:
        try:
            return self._facts.get(timeout=max(0.0, until - self.now()))
        except queue.Empty:
            return None

    def aside(self, work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="aside", daemon=True).start()

    def finish(self, works: Sequence[Callable[[], None]], seconds: float) -> None:
        """Run all ``works`` at the same time, and wait for them for at most ``seconds``."""
        threads = [threading.Thread(target=work, name="finish", daemon=True) for work in works]
        for thread in threads:
            thread.start()
        give_up = self.now() + seconds
        for thread in threads:
            thread.join(max(0.0, give_up - self.now()))

    def together(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        """The results, or the errors, of all ``works``, which run at the same time."""
        found: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        for index, work in enumerate(works):
            threading.Thread(target=_settle, args=(index, work, found), name="look", daemon=True).start()
        results = dict(found.get() for _ in works)
        return [results[index] for index in range(len(works))]


def _settle(index: int, work: Callable[[], Any], found: queue.SimpleQueue[tuple[int, Any]]) -> None:
    try:
        found.put((index, work()))
    except Exception as error:  # noqa: BLE001 - the caller gets it in place of the result
        found.put((index, error))
