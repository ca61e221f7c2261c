"""Reads PySyft's queue although a row of it cannot be read: takes such rows off, and says so.

One such row makes each reading of the queue fail, and no job would run again. Touches no row that can be read.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError
from syft.serde.json_serde import deserialize_json
from syft.service.queue.queue_stash import QueueItem, Status
from syft.store.db.errors import StashDBException
from syft.store.document_store_errors import NotFoundException
from syft.types.uid import UID

from datasite_worker.pysyft.jobs import marks

logger = logging.getLogger(__name__)

WHY = "its place in the queue cannot be read; submit it again"


def of_status(server: Any, status: Status) -> list[QueueItem]:
    """The items of that status. Raises what the database raises, where that is why none can be read."""
    stash, key = server.queue_stash, server.verify_key
    try:
        found: list[QueueItem] = stash.get_by_status(key, status).unwrap()
    except Exception:
        unreadable = list(_unreadable(stash))
        if not unreadable:
            raise
        for uid, job_id in unreadable:
            _take_off(server, uid, job_id)
        found = stash.get_by_status(key, status).unwrap()
    return found


def _unreadable(stash: Any) -> Iterator[tuple[UID, str]]:
    """The rows that cannot be read, each with its job where that can be found."""
    text = sa.cast(stash.table.c.fields, sa.String)
    with stash.sessionmaker() as session:
        rows = session.execute(sa.select(stash.table.c.id, text)).all()
    for uid, fields in rows:
        try:
            told = json.loads(fields)
        except (ValueError, TypeError):
            yield uid, ""
            continue
        try:
            deserialize_json(told)
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            yield uid, str(told.get("job_id", "")) if isinstance(told, dict) else ""


def _take_off(server: Any, uid: UID, job_id: str) -> None:
    """Its job first, so that whoever waits for it is told."""
    try:
        job = server.job_stash.get_by_uid(server.verify_key, UID.from_string(job_id)).unwrap()
        if not job.resolved:
            marks.interrupt(server, job, WHY)
    except (DBAPIError, StashDBException):
        raise
    except (NotFoundException, ValueError):  # deleted, or not to be found
        job_id = ""
    stash = server.queue_stash
    with stash.sessionmaker() as session, session.begin():
        session.execute(stash.table.delete().where(stash.table.c.id == uid))
    logger.error("a job's place in the queue could not be read and was removed (job %s)", job_id or "unknown")
