"""The queue of a datasite's jobs: first come, first served, so many at the same time, each in its own process.

It takes the place of PySyft's own (ZeroMQ, a database query each second, jobs forked from a serving process). Clients
notice nothing: jobs and items are kept in PySyft's stores as before. One thread waits for arrivals, births and ends.
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

from syft.service.job.job_stash import JobStatus
from syft.service.queue.queue_stash import ActionQueueItem, QueueItem, Status
from syft.types.uid import UID

from datasite_worker.jobs.rules import how_it_ended
from datasite_worker.jobs.zygote import Born, Gone, Unborn, Zygote
from datasite_worker.pysyft.activity import Activity, Completed, shortened
from datasite_worker.pysyft.jobs import marks, requests, stores
from datasite_worker.pysyft.jobs.inputs import Inputs, Unobtainable
from datasite_worker.pysyft.jobs.process import Errand

logger = logging.getLogger(__name__)

KILL_PATIENCE = 10.0
"""Seconds that a client's ``job.kill()`` waits until the job is gone and marked."""
_LOOK_AGAIN = 1.0
"""Seconds until jobs that wait for another object's value are looked at again, and ends are stored that the database
has not taken."""


@dataclass(slots=True)
class _Running:
    item: QueueItem
    title: str
    pid: int = 0
    why: str = ""  # it ends without a result, or has
    status: int | None = None  # waitpid's, once it has ended
    started: ExitStack = field(default_factory=ExitStack)
    completed: Completed | None = None
    waited_for: list[threading.Event] = field(default_factory=list)  # by who wants it to end
    told: bool = False


@dataclass(slots=True)
class _Recall:
    """A client wants that job to end. ``over`` is set when it has ended and is marked."""

    job_id: UID
    why: str
    over: threading.Event = field(default_factory=threading.Event)


class JobQueue:
    """``cut_off`` is told of each job that ended without a result: its name and why. ``order``: what each errand has
    in common. ``sessions``: so many jobs at the same time."""

    def __init__(
        self,
        server: Any,
        zygote: Zygote | None,
        order: Callable[[int], Errand],
        activity: Activity,
        cut_off: Callable[[str, str], None],
        sessions: int,
    ) -> None:
        self._server = server
        self._zygote = zygote
        self._order = order
        self._activity = activity
        self._cut_off = cut_off
        self._sessions = sessions
        self._arrived: deque[UID] = deque()
        self._waiting: dict[UID, QueueItem] = {}
        self._running: dict[int, _Running] = {}
        self._ended: list[_Running] = []  # whose end the database does not know yet
        self._recalled: deque[_Recall] = deque()
        self.full_at = float("-inf")  # when a job last had to wait because no more may run; by the monotonic clock
        self._tags = 0
        self._turns: dict[UID, int] = {}  # the tag that each job had when it was first to begin: its place in the queue
        self._not_before = float("-inf")  # no job begins before then; by the monotonic clock
        self._told_of: set[UID] = set()  # jobs that wait for a reason that the log tells
        self._inputs = Inputs(server)
        self._starved = False  # something waits for another object's value, or for the database
        self._look = True  # what is in the store is not all known
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        stores.on_arrival(self._server, self._arrive)
        requests.reach(self._server, self)
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)
        if self._zygote is not None:
            self._listen(self._zygote)
        self._poke()  # the last process may have left some waiting
        self._thread.start()

    @property
    def running(self) -> int:
        """How many jobs run. This and ``waiting`` may be asked from any thread."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def allow(self, sessions: int) -> None:
        """So many jobs at the same time from now on; those that run go on."""
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

    def kill(self, job_ids: Iterable[UID], by: str) -> bool:
        """End those of the jobs that run, by SIGKILL, and take back those that wait; wait until all are marked. False
        when that takes too long."""
        wanted = [_Recall(one, by) for one in job_ids]
        self._recalled.extend(wanted)
        self._poke()
        give_up = time.monotonic() + KILL_PATIENCE
        return all(one.over.wait(max(0.0, give_up - time.monotonic())) for one in wanted)

    # --- the thread ---

    def _run(self) -> None:
        while not self._stopping:
            try:
                for key, _ in self._selector.select(_LOOK_AGAIN if self._starved else None):
                    key.data()
                self._go_round()
            except Exception:
                logger.exception("the queue of jobs stumbled, and goes on")
                self._starved = True

    def _go_round(self) -> None:
        self._starved = False
        self._settle_all()
        try:
            self._take_in()
        finally:
            self._recall_all()  # what runs can be ended whatever the database says
        for item in list(self._waiting.values()):
            if len(self._running) >= self._sessions or self._stopping:
                self.full_at = time.monotonic()
                return
            if time.monotonic() < self._not_before:
                self._starved = True
                return
            if self._can_run(item):
                if not self._begin(item):
                    return
                del self._waiting[item.id]

    def _take_in(self) -> None:
        stash, key = self._server.queue_stash, self._server.verify_key
        if self._look:
            self._arrived.clear()
            found = stash.get_by_status(key, Status.CREATED).unwrap()
            self._look = False
        else:
            self._look = True  # should one of them not be there yet
            found = [stash.get_by_uid(key, self._arrived.popleft()).unwrap() for _ in range(len(self._arrived))]
            self._look = False
        at_work = {one.item.id for one in (*self._running.values(), *self._ended)}
        new = [item for item in found if item.status is Status.CREATED and item.id not in at_work]
        self._waiting |= {item.id: item for item in new}

    def _can_run(self, item: QueueItem) -> bool:
        """What is wrong with one job holds up no other: it is ended where it can never run, else looked at again."""
        try:
            if self._inputs.are_there(item):
                return True
        except Unobtainable as never:
            self._give_up(item, str(never))
            return False
        except Exception:  # noqa: BLE001 - logged, with its traceback, but not each second
            self._say_once(item, "job %s cannot be looked at now", exc_info=True)
        self._starved = True
        return False

    def _give_up(self, item: QueueItem, why: str, waited_for: Iterable[threading.Event] = ()) -> None:
        """End a job that has not begun."""
        given_up = _Running(item, self._title(item), why=why, waited_for=list(waited_for))
        del self._waiting[item.id]
        self._end(given_up)

    def _recall_all(self) -> None:
        for _ in range(len(self._recalled)):
            asked = self._recalled.popleft()
            if self._kill(asked):
                continue
            if self._look:  # it may wait in the store still
                self._recalled.append(asked)
            else:
                asked.over.set()  # it has ended by itself

    def _kill(self, asked: _Recall) -> bool:
        for one in [one for one in self._ended if one.item.job_id == asked.job_id]:
            one.waited_for.append(asked.over)
            return True
        for tag, one in self._running.items():
            if one.item.job_id == asked.job_id:
                one.why = asked.why
                one.waited_for.append(asked.over)
                if self._zygote is not None:
                    with contextlib.suppress(OSError):  # it is gone, and so are its jobs
                        self._zygote.kill(tag)
                return True
        for item in [one for one in self._waiting.values() if one.job_id == asked.job_id]:
            self._give_up(item, asked.why, [asked.over])
            return True
        return False

    def _begin(self, item: QueueItem) -> bool:
        self._tags += 1
        self._turns.setdefault(item.id, self._tags)
        running = self._running[self._tags] = _Running(item, self._title(item))
        errand = self._order(len(self._running) - 1)
        try:
            self._living_zygote().run(self._tags, errand_of(errand, item, running.title).to_dict())
        except OSError as error:
            self._say_once(item, "job %s waits, as there is nothing to fork it from: %s", error)
            del self._running[self._tags]
            self._starved = True
            return False
        running.completed = running.started.enter_context(self._activity.running(running.title))
        return True

    def _living_zygote(self) -> Zygote:
        if self._zygote is None:
            logger.info("starting a process to fork jobs from")
            self._zygote = Zygote.fresh()
            self._listen(self._zygote)
        return self._zygote

    def _listen(self, zygote: Zygote) -> None:
        self._selector.register(zygote.control, selectors.EVENT_READ, lambda: self._heard(zygote))
        self._selector.register(zygote.nudges, selectors.EVENT_READ, lambda: self._nudged(zygote))

    def _heard(self, zygote: Zygote) -> None:
        match zygote.hear():
            case Born(tag, pid):
                self._running[tag].pid = pid
                logger.info("job %s runs as pid %d: %s", self._running[tag].item.job_id, pid, self._running[tag].title)
            case Gone(tag, status, why):
                self._over(tag, status, why)
            case Unborn(tag, why):
                self._put_back(tag, why)
            case None:
                self._lost(zygote)

    def _put_back(self, tag: int, why: str) -> None:
        """At its old place, and tried again soon; unless somebody wants it ended."""
        running = self._running.pop(tag)
        if running.waited_for:
            self._end(running)
            return
        running.started.close()
        self._not_before = time.monotonic() + _LOOK_AGAIN
        self._say_once(running.item, "job %s waits, as it cannot be started now: %s", why)
        back = [(running.item.id, running.item), *self._waiting.items()]
        self._waiting = dict(sorted(back, key=lambda one: self._turns.get(one[0], self._tags + 1)))

    def _say_once(self, item: QueueItem, words: str, *more: object, **how: Any) -> None:
        """Of a job that waits and is looked at each second."""
        if item.id not in self._told_of:
            logger.warning(words, item.job_id, *more, **how)
        self._told_of.add(item.id)

    def _lost(self, zygote: Zygote) -> None:
        """Its jobs died with it (``zygote.die_with``). Whatever its burial says, it is gone, and they have ended."""
        self._zygote = None
        for channel in (zygote.control, zygote.nudges):
            with contextlib.suppress(KeyError):  # nudges may have ended before
                self._selector.unregister(channel)
        logger.warning("the process that jobs are forked from ended")
        try:
            zygote.bury()
        finally:
            for tag, one in list(self._running.items()):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(one.pid, 0) if one.pid else None  # it came to us, dying
                self._over(tag, None)

    def _over(self, tag: int, status: int | None, why: str = "") -> None:
        running = self._running.pop(tag)
        running.status, running.why = status, running.why or why or how_it_ended(status)
        self._end(running)

    def _end(self, running: _Running) -> None:
        running.started.close()
        self._turns.pop(running.item.id, None)
        self._told_of.discard(running.item.id)
        self._ended.append(running)
        self._settle_all()

    def _settle_all(self) -> None:
        """What the database does not take is kept, and tried again: none of these may ever be taken from the queue
        once more."""
        for one in list(self._ended):
            try:
                self._settle(one)
            except Exception:
                self._starved = True
                if not one.told:
                    logger.exception("the end of job %s cannot be stored yet", one.item.job_id)
                one.told = True
            else:
                self._ended.remove(one)
                for waiting in one.waited_for:
                    waiting.set()

    def _settle(self, running: _Running) -> None:
        job = marks.job_of(self._server, running.item)
        if job is None:
            logger.info("job %s was deleted", running.item.job_id)
        elif job.resolved:
            logger.info("job %s: %s", job.id, job.status.value)
            if job.status is JobStatus.COMPLETED and running.completed is not None:
                running.completed()
        else:
            marks.interrupt(self._server, job, running.why)
            logger.warning("job %s interrupted: %s (%s)", job.id, running.why, running.title)
            self._cut_off(f"{running.title} ({job.id})", running.why)
        marks.close(self._server, running.item)  # it may have died between the job's end and the item's

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def _nudged(self, zygote: Zygote) -> None:
        """Jobs queue jobs of their own; which ones, only the store tells."""
        if zygote is not self._zygote:  # buried in this very turn: the number may be another file's by now
            return
        if os.read(zygote.nudges, 4096):
            self._look = True
        else:
            self._selector.unregister(zygote.nudges)  # the zygote is gone; the other channel says so too

    # --- from other threads ---

    def _arrive(self, item: QueueItem) -> None:
        self._arrived.append(item.id)
        self._poke()

    def _poke(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _title(self, item: QueueItem) -> str:
        """The function's name, as clients call it; the service's where there is none."""
        with contextlib.suppress(Exception):  # a name is worth no job
            action = item.kwargs.get("action") if isinstance(item, ActionQueueItem) else None
            if action is not None and action.user_code_id is not None:
                code = self._server.user_code_stash.get_by_uid(self._server.verify_key, action.user_code_id).unwrap()
                return shortened(code.service_func_name)
        return shortened(str(item.kwargs.get("path") or f"{item.service}.{item.method}"))


def errand_of(common: Errand, item: QueueItem, title: str) -> Errand:
    """What the process of ``item`` has to know."""
    return replace(common, item=str(item.id), title=title)
