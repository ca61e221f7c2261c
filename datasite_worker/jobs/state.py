"""The state of the job queue as one frozen value: what waits, what runs, and what has ended but is not stored yet.

Pure: every change gives a new state. It uses no store, process, clock or thread; ``jobs.queue`` carries it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

NEVER_BEGAN = 0
"""In place of a tag: the job was ended before it began."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job and its place in the queue, by their ids. Only the store interprets ``item``."""

    id: str
    job_id: str
    item: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class RunningJob:
    """``title``: what runs, for people. ``pid`` is 0 until the process exists. ``why`` is the reason
    to end it, once a client wants that; it then ends without a result."""

    job: QueuedJob
    tag: int
    title: str = ""
    pid: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class EndedJob:
    """``why``: the reason, in case the store has no result."""

    job: QueuedJob
    why: str
    tag: int = NEVER_BEGAN
    title: str = ""


@dataclass(frozen=True, slots=True)
class QueueState:
    """``waiting`` is in starting order. ``turns``: the tag that each job had when it first began; it gives the job's
    place if it has to wait again."""

    waiting: tuple[QueuedJob, ...] = ()
    running: tuple[RunningJob, ...] = ()
    ended: tuple[EndedJob, ...] = ()
    turns: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    last_tag: int = 0
    not_before: float = float("-inf")  # no job begins before then

    # --- questions ---

    def may_begin(self, sessions: int, now: float) -> bool:
        return not self.is_full(sessions) and now >= self.not_before

    def is_full(self, sessions: int) -> bool:
        return len(self.running) >= sessions

    def tag_of(self, job_id: str) -> int | None:
        """The tag of that job while it runs."""
        return next((one.tag for one in self.running if one.job.job_id == job_id), None)

    def with_tag(self, tag: int) -> RunningJob:
        """Raises KeyError when no such job runs."""
        for one in self.running:
            if one.tag == tag:
                return one
        raise KeyError(tag)

    def knows(self, job_id: str) -> bool:
        jobs = [*self.waiting, *(one.job for one in self.running)]
        jobs += [end.job for end in self.ended]
        return any(job.job_id == job_id for job in jobs)

    # --- what happens ---

    def arrived(self, jobs: Iterable[QueuedJob]) -> QueueState:
        """Add new jobs behind the others. Jobs that run or have ended are still in the store, and are left out."""
        busy = {one.job.id for one in self.running} | {end.job.id for end in self.ended}
        waiting = {job.id: job for job in self.waiting} | {job.id: job for job in jobs if job.id not in busy}
        return replace(self, waiting=tuple(waiting.values()))

    def begun(self, job: QueuedJob, title: str) -> QueueState:
        """The job runs, with the next tag."""
        tag = self.last_tag + 1
        return replace(
            self._without(job),
            running=(*self.running, RunningJob(job, tag, title)),
            turns=MappingProxyType({job.id: tag, **self.turns}),
            last_tag=tag,
        )

    def born(self, tag: int, pid: int) -> QueueState:
        """The job's process exists."""
        running = tuple(replace(one, pid=pid) if one.tag == tag else one for one in self.running)
        return replace(self, running=running)

    def put_back(self, tag: int, not_before: float) -> QueueState:
        """It did not begin: it waits at its old place, unless a client wants it ended."""
        one = self.with_tag(tag)
        if one.why:
            return self.over(tag, one.why)
        last = self.last_tag + 1
        waiting = sorted((one.job, *self.waiting), key=lambda job: self.turns.get(job.id, last))
        return replace(self, waiting=tuple(waiting), running=self._others(tag), not_before=not_before)

    def recalled(self, job_id: str, why: str) -> QueueState:
        """A client wants it ended: a waiting job has ended, a running one is to end for that reason."""
        for job in self.waiting:
            if job.job_id == job_id:
                return self.given_up(job, why)
        return replace(
            self, running=tuple(replace(one, why=why) if one.job.job_id == job_id else one for one in self.running)
        )

    def over(self, tag: int, why: str) -> QueueState:
        """Its process has ended. A client's reason takes precedence."""
        one = self.with_tag(tag)
        return replace(self, running=self._others(tag))._with_end(EndedJob(one.job, one.why or why, tag, one.title))

    def given_up(self, job: QueuedJob, why: str) -> QueueState:
        """It will never begin."""
        return self._without(job)._with_end(EndedJob(job, why))

    def settled(self, end: EndedJob) -> QueueState:
        """Its end is stored."""
        return replace(self, ended=tuple(one for one in self.ended if one is not end))

    def _with_end(self, end: EndedJob) -> QueueState:
        turns = {item: tag for item, tag in self.turns.items() if item != end.job.id}
        return replace(self, ended=(*self.ended, end), turns=MappingProxyType(turns))

    def _without(self, job: QueuedJob) -> QueueState:
        return replace(self, waiting=tuple(one for one in self.waiting if one.id != job.id))

    def _others(self, tag: int) -> tuple[RunningJob, ...]:
        return tuple(one for one in self.running if one.tag != tag)
