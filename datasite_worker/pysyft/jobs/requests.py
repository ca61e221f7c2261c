"""Connects PySyft's ``job.kill`` and ``job.restart`` to the queue of ``jobs.queue``."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from syft.service.job.job_service import JobService
from syft.service.job.job_stash import Job, JobStatus
from syft.service.response import SyftSuccess
from syft.types.errors import SyftException
from syft.types.uid import UID

KILLED = "killed on request"
NO_RESTART = "This datasite does not restart jobs: call the function again."


Kill: TypeAlias = Callable[[list[str], str], bool]
"""Ends the jobs of these ids, for a reason; False when they have not ended in time."""


def reach(server: Any, kill: Kill) -> None:
    """From now on, pass jobs that clients of ``server`` want to kill to ``kill``."""
    server.kill_jobs = kill
    JobService._kill = _kill
    if not hasattr(JobService.kill, "reaches"):
        JobService.kill = _waiting_too(JobService.kill)
        JobService.restart = _refused(JobService.restart)


_kill_as_pysyft = JobService._kill


def _kill(service: JobService, context: Any, job: Job) -> SyftSuccess:
    """PySyft would mark the job, and wait for a thread of the job to look at the mark."""
    end: Kill | None = getattr(context.server, "kill_jobs", None)
    if end is None:
        return _kill_as_pysyft(service, context, job)
    if not end([str(one) for one in (job.id, *_below(service, context, job.id))], KILLED):
        raise SyftException(public_message=f"Job {job.id} was told to end but has not ended yet")
    return SyftSuccess(message="Job killed successfully!")


def _below(service: JobService, context: Any, job_id: UID) -> Iterator[UID]:
    """The jobs that it launched, and those that they launched."""
    for one in service.stash.get_by_parent_id(context.credentials, uid=job_id).unwrap() or []:
        yield one.id
        yield from _below(service, context, one.id)


def _waiting_too(kill: Any) -> Any:
    """PySyft kills what runs, and leaves no way to take back what waits."""

    @functools.wraps(kill)
    def kill_any(service: JobService, context: Any, id: UID) -> SyftSuccess:  # noqa: A002 - PySyft's name for it
        job = service.stash.get_by_uid(context.credentials, uid=id).unwrap()
        if job.status is JobStatus.CREATED and job.parent_job_id is None:
            return _kill(service, context, job)
        return kill(service, context, id=id)

    kill_any.reaches = True  # type: ignore[attr-defined]
    return kill_any


def _refused(restart: Any) -> Any:
    """PySyft 0.9.5 fails half-way through, and leaves a finished job as one that has yet to begin."""

    @functools.wraps(restart)
    def refuse(*_args: Any, **_kwargs: Any) -> SyftSuccess:
        raise SyftException(public_message=NO_RESTART)

    return refuse
