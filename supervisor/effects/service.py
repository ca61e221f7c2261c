"""The asyncio thread of probes and the control API, so that neither can block the engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class ServiceThread:
    """One event loop in one daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Callable[[], None]) -> None:
        """Run ``work``, which takes no time, in the loop itself; nobody waits for it."""
        self._loop.call_soon_threadsafe(work)

    def call(self, work: Callable[[], None]) -> None:
        """Run ``work`` in a thread of the pool; nobody waits for it."""
        self._loop.call_soon_threadsafe(self._loop.run_in_executor, None, work)

    def close(self, patience: float = 2.0) -> None:
        """Cancel what still runs, and end the loop. ``patience``: seconds."""
        self.submit(_cancel_others()).result(patience)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(patience)
        if not self._thread.is_alive():
            self._loop.close()


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
