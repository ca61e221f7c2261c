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

from syft.service.action.action_object import Action
from syft.service.context import AuthedServiceContext
from syft.service.job.job_service import JobService
from syft.service.job.job_stash import Job, JobStatus
from syft.service.queue.queue_stash import ActionQueueItem, QueueItem, Status
from syft.service.queue.zmq_producer import ZMQProducer
from syft.service.response import SyftError, SyftSuccess
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.uid import UID

from datasite_worker.activity import Activity, Completed, shortened
from datasite_worker.jobs import stores
from datasite_worker.jobs.process import Errand
from datasite_worker.jobs.rules import how_it_ended
from datasite_worker.jobs.zygote import Born, Gone, Zygote

logger = logging.getLogger(__name__)

KILL_PATIENCE = 10.0
"""Seconds that a client's ``job.kill()`` waits until the job is gone and marked."""
_LOOK_AGAIN = 1.0
"""Seconds until jobs that wait for another object's value are looked at again."""


@dataclass(slots=True)
class _Running:
    item: QueueItem
    title: str
    pid: int = 0
    killed_by: str = ""
    started: ExitStack = field(default_factory=ExitStack)
    completed: Completed | None = None
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
        self.full_at = float("-inf")  # when a job last had to wait because no more may run; by the monotonic clock
        self._tags = 0
        self._starved = False  # something waits for another object's value
        self._look = True  # what is in the store is not all known
        self._stopping = False
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        stores.on_arrival(self._server, self._arrive)
        _kill_through_queues()
        self._server.job_queue = self
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
        """SIGKILL those of the jobs that run, and wait until they are marked; False when that takes too long."""
        wanted = set(job_ids)
        doomed = {tag: one for tag, one in list(self._running.items()) if one.item.job_id in wanted}
        for tag, one in doomed.items():
            one.killed_by = by
            if self._zygote is not None:
                with contextlib.suppress(OSError):
                    self._zygote.kill(tag)
        return all(one.over.wait(KILL_PATIENCE) for one in doomed.values())

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
        self._take_in()
        self._starved = False
        for item in list(self._waiting.values()):
            if len(self._running) >= self._sessions or self._stopping:
                self.full_at = time.monotonic()
                return
            if self._can_run(item):
                del self._waiting[item.id]
                self._begin(item)
            else:
                self._starved = True

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
        at_work = {one.item.id for one in self._running.values()}
        self._waiting |= {item.id: item for item in found if item.id not in at_work}

    def _can_run(self, item: QueueItem) -> bool:
        if not isinstance(item, ActionQueueItem):
            return True
        action: Action = item.kwargs["action"]
        resolver = _Resolver(self._server)
        return not any(
            resolver.contains_unresolved_action_objects(values).unwrap() for values in (action.args, action.kwargs)
        )

    def _begin(self, item: QueueItem) -> None:
        self._tags += 1
        running = _Running(item, self._title(item))
        self._running[self._tags] = running
        errand = self._order(len(self._running) - 1)
        zygote = self._living_zygote()
        try:
            zygote.run(self._tags, errand_of(errand, item, running.title).to_dict())
        except OSError:
            logger.warning("the process that jobs are forked from is gone; job %s waits for the next", item.job_id)
            del self._running[self._tags]
            self._waiting = {item.id: item, **self._waiting}
            return
        running.completed = running.started.enter_context(self._activity.running(running.title))

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
            case Gone(tag, status):
                self._over(tag, status)
            case None:
                self._lost(zygote)

    def _lost(self, zygote: Zygote) -> None:
        """Its jobs died with it (``zygote.die_with``)."""
        self._selector.unregister(zygote.control)
        self._selector.unregister(zygote.nudges)
        zygote.bury()
        self._zygote = None
        logger.warning("the process that jobs are forked from ended")
        for tag, one in list(self._running.items()):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(one.pid, 0) if one.pid else None  # it came to us, dying
            self._over(tag, None)

    def _over(self, tag: int, status: int | None) -> None:
        running = self._running.pop(tag)
        try:
            self._settle(running, status)
        finally:
            running.started.close()
            running.over.set()

    def _settle(self, running: _Running, status: int | None) -> None:
        key = self._server.verify_key
        job: Job = self._server.job_stash.get_by_uid(key, running.item.job_id).unwrap()
        if job.resolved:
            logger.info("job %s: %s", job.id, job.status.value)
            if job.status is JobStatus.COMPLETED and running.completed is not None:
                running.completed()
            if status != 0:  # it died between the job and its item, which nobody may take from the queue again
                self._close(running.item)
            return
        why = running.killed_by or how_it_ended(status)
        job.status, job.resolved = JobStatus.INTERRUPTED, True
        job.result = SyftError(message=f"interrupted: {why}")
        self._server.job_stash.update(key, job).unwrap()
        self._close(running.item)
        logger.warning("job %s interrupted: %s (%s)", job.id, why, running.title)
        self._cut_off(f"{running.title} ({job.id})", why)

    def _close(self, item: QueueItem) -> None:
        item.status, item.resolved = Status.INTERRUPTED, True
        self._server.queue_stash.update(self._server.verify_key, item).unwrap()

    def _woken(self) -> None:
        os.eventfd_read(self._wake)

    def _nudged(self, zygote: Zygote) -> None:
        """Jobs queue jobs of their own; which ones, only the store tells."""
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
        action = item.kwargs.get("action") if isinstance(item, ActionQueueItem) else None
        if action is not None and action.user_code_id is not None:
            with contextlib.suppress(SyftException):
                code = self._server.user_code_stash.get_by_uid(self._server.verify_key, action.user_code_id).unwrap()
                return shortened(code.service_func_name)
        return shortened(str(item.kwargs.get("path") or f"{item.service}.{item.method}"))


def errand_of(common: Errand, item: QueueItem, title: str) -> Errand:
    """What the process of ``item`` has to know."""
    return replace(common, item=str(item.id), title=title)


class _Resolver:
    """PySyft's own rule of which items can run, without its producer."""

    contains_unresolved_action_objects = ZMQProducer.contains_unresolved_action_objects

    def __init__(self, server: Any) -> None:
        self.auth_context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
        self.action_service = server.services.action


def _kill_through_queues() -> None:
    """``job.kill()`` of a client: PySyft would mark the job, and wait for a thread of the job to look at the mark."""
    JobService._kill = _kill


_kill_as_pysyft = JobService._kill


def _kill(service: JobService, context: Any, job: Job) -> SyftSuccess:
    jobs: JobQueue | None = getattr(context.server, "job_queue", None)
    if jobs is None:
        return _kill_as_pysyft(service, context, job)
    below = service.stash.get_by_parent_id(context.credentials, uid=job.id).unwrap() or []
    if not jobs.kill([job.id, *(one.id for one in below)], "killed on request"):
        raise SyftException(public_message=f"Job {job.id} has been told to end, and has not ended yet")
    return SyftSuccess(message="Job killed successfully!")
