"""PySyft's queue with a row that cannot be read, in PySyft's own stores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from syft.service.job.job_stash import Job, JobStatus
from syft.service.queue.queue_stash import QueueItem, Status
from syft.store.db.errors import StashDBException
from syft.types.uid import UID

from datasite_worker.credentials import Identity
from datasite_worker.engine import Hosting
from datasite_worker.pysyft import server as hosting
from datasite_worker.pysyft.jobs import rows, settling

pytestmark = pytest.mark.process  # it loads PySyft


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    who = Identity(UID().no_dash, "33" * 32, "root@example.com", "a-long-password")
    folder = tmp_path_factory.mktemp("rows")
    made = hosting.make_server(Hosting("site", who, folder, dev_mode=False, auto_approval=True, sessions=1))
    yield made
    made.close()


def queued(server: Any, status: JobStatus = JobStatus.CREATED) -> QueueItem:
    """A job, and its place in the queue."""
    job = Job(id=UID(), server_uid=server.id, syft_client_verify_key=server.verify_key, status=status)
    server.job_stash.set(server.verify_key, job).unwrap()
    item = QueueItem(
        id=UID(), server_uid=server.id, syft_client_verify_key=server.verify_key, syft_server_location=server.id,
        job_id=job.id, service="user", method="create", args=[], kwargs={},
        worker_pool=server.get_worker_pool_ref_by_name(server.verify_key),
    )  # fmt: skip
    server.queue_stash.set_placeholder(server.verify_key, item).unwrap()
    return item


def job_of(server: Any, item: QueueItem) -> Job:
    found: Job = server.job_stash.get_by_uid(server.verify_key, item.job_id).unwrap()
    return found


def scribble(server: Any, item: QueueItem, old: str, new: str) -> None:
    """Damage its row: ``old`` in its text becomes ``new``."""
    stash = server.queue_stash
    with stash.sessionmaker() as session, session.begin():
        words = {"old": old, "new": new, "id": item.id.no_dash}
        text = f'UPDATE "{stash.table.name}" SET fields = replace(fields, :old, :new) WHERE id = :id'
        assert 1 == session.execute(sa.text(text), words).rowcount


DAMAGES = [('"method"', '"mothod"'), ('"', "")]


@pytest.mark.parametrize(("old", "new"), DAMAGES, ids=["an unknown field", "no JSON"])
def test_a_row_that_cannot_be_read_keeps_no_other_job_back(
    server: Any, monkeypatch: pytest.MonkeyPatch, old: str, new: str
) -> None:
    """It is taken off the queue, once, and told. Its job is marked where it can be found."""
    bad, good = queued(server), queued(server)
    scribble(server, bad, old, new)
    said: list[str] = []
    monkeypatch.setattr(rows.logger, "error", lambda words, job: said.append(words % job))
    found = [rows.of_status(server, Status.CREATED) for _ in range(2)]
    ids = [{one.id for one in items} for items in found]
    assert [(True, False)] * 2 == [(good.id in one, bad.id in one) for one in ids]
    known = new != ""
    told = str(bad.job_id) if known else "unknown"
    assert [f"a job's place in the queue could not be read and was removed (job {told})"] == said
    assert (JobStatus.INTERRUPTED if known else JobStatus.CREATED) is job_of(server, bad).status
    assert JobStatus.CREATED is job_of(server, good).status


def test_a_datasite_starts_with_a_row_that_cannot_be_read(server: Any) -> None:
    """What waited still waits."""
    bad, good = queued(server), queued(server)
    scribble(server, bad, *DAMAGES[0])
    assert [] == settling.settle(server)
    assert Status.CREATED is server.queue_stash.get_by_uid(server.verify_key, good.id).unwrap().status


def test_a_database_that_fails_while_jobs_are_settled_settles_none_of_them_wrongly(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The start fails, and is tried again: a job that has not begun must not be taken off the queue as if it had."""
    item = queued(server)

    def fail(*_args: Any, **_how: Any) -> Any:
        raise StashDBException(private_message="database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(type(server.job_stash), "get_by_uid", fail)
        with pytest.raises(StashDBException):
            settling.settle(server)
    settling.settle(server)
    assert Status.CREATED is server.queue_stash.get_by_uid(server.verify_key, item.id).unwrap().status


def test_what_the_database_refuses_is_not_taken_for_damage(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row is removed."""
    item = queued(server)

    def fail(*_args: Any, **_how: Any) -> Any:
        raise StashDBException(private_message="database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(type(server.queue_stash), "get_by_status", fail)
        with pytest.raises(StashDBException):
            rows.of_status(server, Status.CREATED)
    assert server.queue_stash.exists(server.verify_key, item.id)
