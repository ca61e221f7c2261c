"""PySyft's jobs as the queue of ``jobs.queue`` needs them: a ``JobStore``. Knows of no process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from syft.service.job.job_stash import JobStatus
from syft.service.queue.queue_stash import ActionQueueItem, QueueItem, Status
from syft.types.uid import UID

from datasite_worker.activity import shortened
from datasite_worker.jobs.state import QueuedJob
from datasite_worker.jobs.store import Ending
from datasite_worker.pysyft.jobs import marks, printing, requests, rows, shared_database
from datasite_worker.pysyft.jobs.inputs import Inputs


class PySyftJobs:
    """The jobs of PySyft's ``server``."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._inputs = Inputs(server)

    def attach(self, arrived: Callable[[str], None], kill: Callable[[list[str], str], bool]) -> None:
        shared_database.on_arrival(self._server, lambda item: arrived(str(item.id)))
        requests.reach(self._server, kill)

    def waiting(self) -> list[QueuedJob]:
        found = rows.of_status(self._server, Status.CREATED)
        return [_queued(item) for item in found if item.status is Status.CREATED]

    def find(self, place: str) -> QueuedJob | None:
        item = self._server.queue_stash.get_by_uid(self._server.verify_key, UID.from_string(place)).unwrap()
        return _queued(item) if item.status is Status.CREATED else None

    def has_inputs(self, job: QueuedJob) -> bool:
        return self._inputs.are_there(job.item)

    def title(self, job: QueuedJob) -> str:
        """The function's name, as clients call it; the service's where there is none."""
        item = job.item
        with contextlib.suppress(Exception):  # a name is worth no job
            action = item.kwargs.get("action") if isinstance(item, ActionQueueItem) else None
            if action is not None and action.user_code_id is not None:
                code = self._server.user_code_stash.get_by_uid(self._server.verify_key, action.user_code_id).unwrap()
                return shortened(code.service_func_name)
        return shortened(str(item.kwargs.get("path") or f"{item.service}.{item.method}"))

    def end(self, job: QueuedJob, why: str) -> Ending:
        found = marks.job_of(self._server, job.item)
        if found is None:
            printing.discard(self._server, job.item.job_id)
            return Ending()
        printing.collect(self._server, found)
        if found.resolved:
            return Ending(found.status.value, completed=found.status is JobStatus.COMPLETED)
        marks.interrupt(self._server, found, why)
        return Ending(found.status.value, interrupted=True)

    def close(self, job: QueuedJob) -> None:
        marks.close(self._server, job.item)


def _queued(item: QueueItem) -> QueuedJob:
    return QueuedJob(str(item.id), str(item.job_id), item)
