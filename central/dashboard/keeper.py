"""Brings what the roster holds to the store: a registration before it is answered, beats at most a second later.

Whatever waits is written together, in one transaction and one sync, by one thread: a thousand registrations at once
cost a few of them. Decides nothing about factories. A disk that fails loses nothing that the memory still has: it is
tried again every second.
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
"""Seconds that beats wait for company."""
_AGAIN = 1.0
_TIDY_EVERY = 600.0
_FAILURES = (SQLAlchemyError, ValueError, TypeError, OverflowError)
"""The last three: what SQLite's driver says of a value that it cannot store. None of them may end the keeper."""


class Keeper:
    """``run`` writes until cancelled; ``close`` afterwards writes the rest."""

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
        """The roster has something new."""
        self._anything.set()

    async def written(self) -> None:
        """Return when all that the roster holds now is on the disk. Raises SQLAlchemyError."""
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
            self._roster.put_back(batch)  # cancelled: it may have been written, and twice does no harm
            raise
        if self.failing is not None:
            logger.info("the database can be written again; nothing was lost meanwhile")
        self.failing = None
        return None

    def _note_failure(self, error: Exception) -> None:
        if self.failing is None:
            logger.error("the database cannot be written, and is tried again every second: %s", error)
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
            logger.error("old history could not be removed: %s", error)


def _answer(waiter: asyncio.Future[None], error: Exception | None) -> None:
    if waiter.done():  # its request was given up
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)
