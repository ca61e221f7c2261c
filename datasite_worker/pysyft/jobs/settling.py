"""Settles PySyft's jobs that were interrupted when the last process ended. Works on the stores, before serving starts.

PySyft leaves them PROCESSING for ever, so a client would wait for ever. A job that had begun is marked interrupted and
never run again automatically, because it may have killed the process. A job that had only been taken from the queue
goes back to it.
"""

from __future__ import annotations

import logging
from typing import Any

from syft.service.job.job_stash import Job, JobStatus
from syft.service.queue.queue_stash import QueueItem, Status
from syft.service.response import SyftError
from syft.store.document_store_errors import NotFoundException
from syft.types.errors import SyftException

from datasite_worker.activity import shortened
from datasite_worker.pysyft.jobs import printing, rows

logger = logging.getLogger(__name__)

_WHY = "interrupted: the datasite restarted while this job ran; submit it again"
_IN_FLIGHT = (JobStatus.PROCESSING, JobStatus.TERMINATING)


def settle(server: Any) -> list[str]:
    """Settle all jobs of an earlier process. Returns the names (and ids) of the interrupted ones."""
    key = server.verify_key
    interrupted = [
        job
        for status in _IN_FLIGHT
        for job in server.job_stash.get_all(credentials=key, filters={"status": status}).unwrap()
    ]
    for job in interrupted:
        printing.collect(server, job)
        job.status, job.resolved, job.result = JobStatus.INTERRUPTED, True, SyftError(message=_WHY)
        server.job_stash.update(key, job).unwrap()
    for status in (Status.PROCESSING, Status.CREATED):
        for item in rows.of_status(server, status):
            _settle_item(server, item)
    return _told([_name(server, job) for job in interrupted])


def _settle_item(server: Any, item: QueueItem) -> None:
    found = _job_status(server, item)
    if found is None:
        printing.discard(server, item.job_id)
    began = found is not JobStatus.CREATED
    status, resolved = (Status.INTERRUPTED, True) if began else (Status.CREATED, False)
    if item.status is not status:
        item.status, item.resolved = status, resolved
        server.queue_stash.update(server.verify_key, item).unwrap()


def _job_status(server: Any, item: QueueItem) -> JobStatus | None:
    try:
        found: JobStatus = server.job_stash.get_by_uid(server.verify_key, item.job_id).unwrap().status
    except NotFoundException:  # any other error says nothing of the job: the start fails, and is tried again
        return None
    return found


def _name(server: Any, job: Job) -> str:
    """The function's name and the job's id; the id alone where there is no function."""
    try:
        code = server.user_code_stash.get_by_uid(server.verify_key, job.user_code_id).unwrap()
    except SyftException:
        return str(job.id)
    return f"{shortened(code.service_func_name)} ({job.id})"


def _told(names: list[str]) -> list[str]:
    if names:
        logger.warning("interrupted when this datasite last ended (%d): %s", len(names), ", ".join(names))
    return names if len(names) <= _MOST else [*names[:_MOST], f"and {len(names) - _MOST} more"]


_MOST = 32
