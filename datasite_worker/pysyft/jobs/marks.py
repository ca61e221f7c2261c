"""Marks jobs in PySyft's stores as interrupted. Uses no process."""

from __future__ import annotations

from typing import Any

from syft.service.job.job_stash import Job, JobStatus
from syft.service.queue.queue_stash import QueueItem, Status
from syft.service.response import SyftError
from syft.store.document_store_errors import NotFoundException


def job_of(server: Any, item: QueueItem) -> Job | None:
    """None: it was deleted."""
    try:
        found: Job = server.job_stash.get_by_uid(server.verify_key, item.job_id).unwrap()
    except NotFoundException:
        return None
    return found


def interrupt(server: Any, job: Job, why: str) -> None:
    """Resolved, with the cause as its result: whoever waits for it is told."""
    job.status, job.resolved, job.result = JobStatus.INTERRUPTED, True, SyftError(message=f"interrupted: {why}")
    server.job_stash.update(server.verify_key, job).unwrap()


def close(server: Any, item: QueueItem) -> None:
    """Take it off the queue for good. What its job stored is kept."""
    try:
        stored = server.queue_stash.get_by_uid(server.verify_key, item.id).unwrap()
    except NotFoundException:
        return
    if not stored.resolved:
        stored.status, stored.resolved = Status.INTERRUPTED, True
        server.queue_stash.update(server.verify_key, stored).unwrap()
