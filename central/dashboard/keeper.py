"""Writes the roster to the store: a registration before its answer, heartbeats at most a second later.

One thread writes everything that waits in one transaction with one sync, so a thousand registrations at once need only
a few. Decides nothing about factories. When the disk fails, the data stays in memory, and the keeper tries again every
second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from central.dashboard.liveness import Now
from central.dashboard.roster import Roster
from central.dashboard.store import FactoryStore

logger = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds that heartbeats wait, so that several are written together."""
_AGAIN = 1.0
_TIDY_EVERY = 600.0
_FAILURES = (SQLAlchemyError, ValueError, TypeError, OverflowError)
"""SQLite's driver raises the last three for a value that it cannot store. None of them may end the keeper."""


class Keeper:
    """``run`` writes until cancelled. ``close`` then writes the rest."""

    def __init__(self, store: FactoryStore, roster: Roster, now: Callable[[], Now]) -> None:
        self._store = store
        self._roster = roster
        self._now = now
        self._anything = asyncio.Event()
        self._urgent = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="keeper")
        self._writing = asyncio.Lock()
        self._tidy_due = 0.0
        self.failing: Exception | None = None

    def note(self) -> None:
        """The roster has changed."""
        self._anything.set()

    async def written(self) -> None:
        """Return when the whole roster, as it is now, is on the disk. Raises SQLAlchemyError."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._anything.set()
        self._urgent.set()
        await waiter

    async def run(self) -> None:
        while True:
            await self._anything.wait()
            if not self._urgent.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), PATIENCE)
            await self._write()
            if self.failing is not None:
                await asyncio.sleep(_AGAIN)
                self._anything.set()

    async def close(self) -> None:
        await self._write()
        self._thread.shutdown()

    async def _write(self) -> None:
        async with self._writing:
            self._anything.clear()
            self._urgent.clear()
            waiting, self._waiting = self._waiting, []
            error = await self._write_batch()
            for waiter in waiting:
                _answer(waiter, error)
            if error is None:
                await self._tidy()

    async def _write_batch(self) -> Exception | None:
        batch = self._roster.take_unwritten()
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._store.write, batch)
        except _FAILURES as error:
            self._roster.put_back(batch)
            self._note_failure(error)
            return error
        except BaseException:
            self._roster.put_back(batch)  # cancelled: it may be written already, and writing it twice does no harm
            raise
        if self.failing is not None:
            logger.info("writing to the database works again; no data was lost")
        self.failing = None
        return None

    def _note_failure(self, error: Exception) -> None:
        if self.failing is None:
            logger.error("cannot write to the database, trying again every second: %s", error)
        self.failing = error

    async def _tidy(self) -> None:
        now = self._now()
        if now.tick < self._tidy_due:
            return
        self._tidy_due = now.tick + _TIDY_EVERY
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, self._store.tidy, now.wall)
        except SQLAlchemyError as error:
            logger.error("cannot remove old history from the database: %s", error)


def _answer(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():  # its request was cancelled
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
