"""The queue of a datasite's jobs: first come, first served. A limited number runs at a time, each in its own process.

It replaces PySyft's queue (ZeroMQ, a database query every second, jobs forked from a serving process). Clients see no
difference: jobs are kept in the engine's ``JobStore`` as before. One thread waits for arrivals, starts and ends; its
state is a ``QueueState``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from datasite_worker.activity import Activity, Completed
from datasite_worker.jobs.errand import Errand
from datasite_worker.jobs.rules import how_it_ended
from datasite_worker.jobs.state import EndedJob, QueuedJob, QueueState
from datasite_worker.jobs.store import JobStore, Unobtainable
from datasite_worker.jobs.zygote import Born, Gone, Unborn, Zygote

logger = logging.getLogger(__name__)

KILL_PATIENCE = 10.0
"""Seconds that a client's ``job.kill()`` waits until the job is gone and marked."""
LOOK_AGAIN = 1.0
"""Seconds until the queue checks waiting inputs again, and tries again to store ends that the database refused."""

SELDOM = 60.0
"""Seconds to which that grows while trouble lasts."""
GIVE_UP = 600.0
"""Seconds after which a job that could not be started is ended with the reason."""


@dataclass(slots=True)
class _Recall:
    """A client's request to end a job. ``over`` is set when the job has ended and is marked."""

    job_id: str
    why: str
    over: threading.Event = field(default_factory=threading.Event)


@dataclass(slots=True)
class _Mention:
    """A running job's entry among the activities: how to close it, and how to record that the job completed."""

    until: ExitStack = field(default_factory=ExitStack)
    completed: Completed = lambda: None


class JobQueue:
    """``cut_off`` is called for each job that ended without a result, with its name and the reason. ``order``: what
    each errand has in common. ``sessions``: how many jobs may run at a time. ``fresh``: makes a new zygote."""

    def __init__(
        self,
        store: JobStore,
        zygote: Zygote | None,
        fresh: Callable[[], Zygote],
        order: Callable[[int], Errand],
        activity: Activity,
        cut_off: Callable[[str, str], None],
        sessions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._zygote = zygote
        self._fresh = fresh
        self._order = order
        self._activity = activity
        self._cut_off = cut_off
        self._sessions = sessions
        self._clock = clock
        self._state = QueueState()
        self._mentions: dict[int, _Mention] = {}  # by tag
        self._arrived: deque[str] = deque()
        self._recalled: deque[_Recall] = deque()
        self._awaited: dict[str, list[threading.Event]] = {}  # by job: set when its end is stored
        self.full_at = float("-inf")  # when a job last had to wait for a free place; monotonic clock
        self._held_up: dict[str, float] = {}  # waiting jobs that could not be started, and since when
        self._unstored: dict[str, tuple[float, float]] = {}  # ends that could not be stored: since when, and next try
        self._look = True  # the store has to be read again
        self._again = False  # another turn is needed, although no event will ask for it
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        self.attach()
        self._thread.start()

    def attach(self) -> None:
        """Listen to store and zygote. ``turn`` does the work."""
        self._store.attach(self._arrive, self.kill)
        self._selector.register(self._wake, selectors.EVENT_READ, lambda: os.eventfd_read(self._wake))
        if self._zygote is not None:
            self._listen(self._zygote)
        self._poke()  # the last process may have left waiting jobs

    @property
    def state(self) -> QueueState:
        """Safe to call from any thread, as are ``running`` and ``waiting``."""
        return self._state

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._state.running)

    @property
    def waiting(self) -> int:
        return len(self._state.waiting)

    def allow(self, sessions: int) -> None:
        """Set how many jobs may run at a time. Running jobs continue."""
        self._sessions = sessions
        self._poke()

    def stop(self) -> None:
        """End the jobs that run; the next process of this datasite marks them interrupted."""
        self._stopping = True
        self._poke()
        if self._thread.is_alive():
            self._thread.join(KILL_PATIENCE)
        if self._zygote is not None:
            self._zygote.bury()
            self._zygote = None

    def kill(self, job_ids: Iterable[str], by: str) -> bool:
        """End the running ones of these jobs by SIGKILL, cancel the waiting ones, and wait until all are marked. False
        if that takes too long. ``by`` is the reason, and is not empty."""
        wanted = [_Recall(one, by) for one in job_ids]
        self._recalled.extend(wanted)
        self._poke()
        give_up = time.monotonic() + KILL_PATIENCE
        return all(one.over.wait(max(0.0, give_up - time.monotonic())) for one in wanted)

    # --- the thread ---

    def _run(self) -> None:
        again = False
        while not self._stopping:
            try:
                again = self.turn(LOOK_AGAIN if again else None)
            except Exception:
                logger.exception("unexpected error in the job queue; the queue continues")
                again = True

    def turn(self, timeout: float | None) -> bool:
        """Wait up to ``timeout`` seconds (None: for ever) for an event, and act on it. True when another turn is needed
        soon, although no event will ask for it."""
        for key, _ in self._selector.select(timeout):
            key.data()
        self._again = False
        self._settle_all()
        try:
            self._take_in()
        finally:
            self._recall_all()  # running jobs can be ended without the database
        self._begin_all()
        return self._again

    def _take_in(self) -> None:
        look, self._look = self._look, True  # one of them may not be known yet
        if look:
            self._arrived.clear()
            found: list[QueuedJob | None] = list(self._store.waiting())
        else:
            found = [self._store.find(self._arrived.popleft()) for _ in range(len(self._arrived))]
        self._look = False
        self._state = self._state.arrived(job for job in found if job is not None)

    def _begin_all(self) -> None:
        for job in self._state.waiting:
            if self._state.is_full(self._sessions) or self._stopping:
                self.full_at = self._clock()
                return
            if not self._state.may_begin(self._sessions, self._clock()):
                self._again = True
                return
            if self._can_run(job) and not self._begin(job):
                return

    def _can_run(self, job: QueuedJob) -> bool:
        """A problem of one job does not delay the others: the job is ended if it can never run, else checked again."""
        try:
            if self._store.has_inputs(job):
                return True
        except Unobtainable as never:
            self._state = self._state.given_up(job, str(never))
            self._settle_all()
            return False
        except Exception as error:  # noqa: BLE001 - logged, with its traceback, but not each second
            why = f"its inputs cannot be read ({type(error).__name__})"
            self._hold_up(job, why, "cannot read what job %s needs; trying again", exc_info=True)
        self._again = True
        return False

    def _recall_all(self) -> None:
        for _ in range(len(self._recalled)):
            self._recall(self._recalled.popleft())

    def _recall(self, wanted: _Recall) -> None:
        if not self._state.knows(wanted.job_id):
            if self._look:  # it may still wait in the store
                self._recalled.append(wanted)
            else:
                wanted.over.set()  # it has ended by itself
            return
        self._awaited.setdefault(wanted.job_id, []).append(wanted.over)
        self._state = self._state.recalled(wanted.job_id, wanted.why)
        tag = self._state.tag_of(wanted.job_id)
        if tag is not None and self._zygote is not None:
            with contextlib.suppress(OSError):  # the zygote is gone, and so are its jobs
                self._zygote.kill(tag)
        self._settle_all()

    def _begin(self, job: QueuedJob) -> bool:
        title = self._store.title(job)
        after = self._state.begun(job, title)
        errand = replace(self._order(self.running), item=job.id, title=title)
        try:
            self._living_zygote().run(after.last_tag, errand.to_dict())
        except OSError as error:
            why = f"the process that forks jobs is not available: {error}"
            self._hold_up(job, why, "job %s waits: %s", why)
            return False
        self._state = after
        mention = self._mentions[after.last_tag] = _Mention()
        mention.completed = mention.until.enter_context(self._activity.running(title))
        return True

    def _living_zygote(self) -> Zygote:
        if self._zygote is None:
            logger.info("starting the process that forks jobs")
            self._zygote = self._fresh()
            self._listen(self._zygote)
        return self._zygote

    def _listen(self, zygote: Zygote) -> None:
        self._selector.register(zygote.control, selectors.EVENT_READ, lambda: self._heard(zygote))
        self._selector.register(zygote.nudges, selectors.EVENT_READ, lambda: self._nudged(zygote))

    def _heard(self, zygote: Zygote) -> None:
        match zygote.hear():
            case Born(tag, pid):
                self._state = self._state.born(tag, pid)
                one = self._state.with_tag(tag)
                logger.info("job %s runs as pid %d: %s", one.job.job_id, pid, one.title)
            case Gone(tag, status, why):
                self._over(tag, why or how_it_ended(status))
            case Unborn(tag, why):
                self._put_back(tag, why)
            case None:
                self._lost(zygote)

    def _put_back(self, tag: int, why: str) -> None:
        """Back to its old place, to be tried again soon, unless a client wants it ended."""
        job, now = self._state.with_tag(tag).job, self._clock()
        pause = min(SELDOM, max(LOOK_AGAIN, now - self._held_up.get(job.id, now)))
        self._state = self._state.put_back(tag, now + pause)
        if job in self._state.waiting:
            self._forget(tag)
            self._hold_up(job, why, "job %s waits: it cannot be started now: %s", why)
        else:
            self._settle_all()

    def _hold_up(self, job: QueuedJob, why: str, words: str, *more: object, **how: Any) -> None:
        """A waiting job cannot be started. It is told once, tried again, and ended when that has lasted too long."""
        now = self._clock()
        if job.id not in self._held_up:
            logger.warning(words, job.job_id, *more, **how)
        self._again = True
        if now - self._held_up.setdefault(job.id, now) >= GIVE_UP:
            self._state = self._state.given_up(job, f"it could not be started for {GIVE_UP / 60:g} minutes: {why}")
            self._settle_all()

    def _lost(self, zygote: Zygote) -> None:
        """Its jobs died with it (``die_with``). Even if the clean-up fails, zygote and jobs are gone."""
        self._zygote = None
        for channel in (zygote.control, zygote.nudges):
            with contextlib.suppress(KeyError):  # nudges may have ended before
                self._selector.unregister(channel)
        logger.warning("the process that forks jobs ended")
        try:
            zygote.bury()
        finally:
            for one in self._state.running:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(one.pid, 0) if one.pid else None  # orphaned, it became our child
                self._over(one.tag, how_it_ended(None))

    def _over(self, tag: int, why: str) -> None:
        self._state = self._state.over(tag, why)
        self._settle_all()

    def _settle_all(self) -> None:
        """Ends that the database does not accept are kept and stored later: such a job must never be taken from the
        queue again."""
        for end in self._state.ended:
            self._held_up.pop(end.job.id, None)
            if end.tag in self._mentions:
                self._mentions[end.tag].until.close()
            now = self._clock()
            since, due = self._unstored.get(end.job.id, (now, now))
            if now < due:
                self._again = True
                continue
            try:
                self._settle(end)
            except Exception:
                self._again = True
                if end.job.id not in self._unstored:
                    logger.exception("the end of job %s cannot be stored; trying again", end.job.job_id)
                self._unstored[end.job.id] = since, now + min(SELDOM, now - since)
            else:
                self._stored(end)

    def _stored(self, end: EndedJob) -> None:
        self._state = self._state.settled(end)
        self._unstored.pop(end.job.id, None)
        self._forget(end.tag)
        for over in self._awaited.pop(end.job.job_id, ()):
            over.set()

    def _settle(self, end: EndedJob) -> None:
        job, mention = end.job, self._mentions.get(end.tag)
        ending = self._store.end(job, end.why)
        if ending.interrupted:
            title = end.title or self._store.title(job)
            logger.warning("job %s interrupted: %s (%s)", job.job_id, end.why, title)
            self._cut_off(f"{title} ({job.job_id})", end.why)
        else:
            logger.info("job %s%s", job.job_id, f": {ending.status}" if ending.status else " was deleted")
        if ending.completed and mention is not None:
            mention.completed()
        self._store.close(job)  # the process may have died between storing the job's end and the item's

    def _forget(self, tag: int) -> None:
        if mention := self._mentions.pop(tag, None):
            mention.until.close()

    def _nudged(self, zygote: Zygote) -> None:
        """A job has queued another job. Only the store knows which."""
        if zygote is not self._zygote:  # closed in this turn: another file may have the descriptor's number now
            return
        if os.read(zygote.nudges, 4096):
            self._look = True
        else:
            self._selector.unregister(zygote.nudges)  # the zygote is gone; the other channel reports it too

    # --- from other threads ---

    def _arrive(self, place: str) -> None:
        self._arrived.append(place)
        self._poke()

    def _poke(self) -> None:
        os.eventfd_write(self._wake, 1)
