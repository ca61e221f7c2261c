"""What a job's process arranges for itself before its function runs."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine
from syft.service.job.job_stash import JobStatus
from syft.service.user.user_roles import ServiceRole

from datasite_worker.jobs.errand import Errand
from datasite_worker.pysyft import durability
from datasite_worker.pysyft.jobs import runner

pytestmark = pytest.mark.process  # it loads PySyft


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    logger = logging.getLogger("datasite_worker")
    kept = logger.handlers, logger.level, logger.propagate
    yield logger
    for handler in set(logger.handlers) - set(kept[0]):
        handler.close()
    logger.handlers, logger.level, logger.propagate = kept


def test_a_job_follows_the_datasites_log_and_never_turns_it_over(tmp_path: Path, ours: logging.Logger) -> None:
    """It was born with the datasite's open log, full or renamed since; its own words come to the present one."""
    log = tmp_path / "line.log"
    log.write_text("x" * 1000)
    ours.handlers = [RotatingFileHandler(log, maxBytes=10, backupCount=5)]
    runner._append_to(str(log))
    runner._append_to(str(log))  # where preparing failed the first time
    runner.logger.info("before")
    log.rename(tmp_path / "line.log.1")
    runner.logger.info("after")
    assert ["line.log", "line.log.1"] == sorted(path.name for path in tmp_path.iterdir())
    assert log.read_text().endswith(" - INFO - after\n")
    assert 1 == len(log.read_text().splitlines())
    assert (tmp_path / "line.log.1").read_text().endswith(" - INFO - before\n")


def test_a_child_of_a_job_has_a_database_connection_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither uses its parent's nor closes it, which would end what the parent writes; and it is as patient."""
    hooks: dict[str, Callable[[], None]] = {}
    monkeypatch.setattr(os, "register_at_fork", hooks.update)
    engine = create_engine(f"sqlite:///{tmp_path}/one.db")
    server = SimpleNamespace(db=SimpleNamespace(engine=engine))
    durability.of_database(server)

    def used() -> Any:
        with contextlib.closing(engine.raw_connection()) as connection:
            return connection.dbapi_connection

    runner._share_no_connection(server)
    parents = used()
    assert parents is used()
    hooks["after_in_child"]()
    own = used()
    assert parents is not own
    assert [(1,), (60_000,)] == [
        parents.execute("SELECT 1").fetchone(),
        own.execute("PRAGMA busy_timeout").fetchone(),
    ]
    own.close()
    parents.close()


def test_what_every_optimizer_imports_is_imported_before_the_first_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, by what jobs are forked from: it takes a second, and each job would pay it."""
    imported: list[str] = []
    monkeypatch.setattr(runner, "import_module", imported.append)
    made = SimpleNamespace(
        queue_stash=SimpleNamespace(get_by_status=lambda _key, _status: Answer([])),
        verify_key="root",
        db=SimpleNamespace(engine=SimpleNamespace(dispose=lambda: None)),
    )
    monkeypatch.setattr(runner, "_server", lambda _told: made)
    monkeypatch.setattr(runner, "_append_to", lambda _log: None)
    assert made is runner.prepare(Errand("line", "/nowhere").to_dict())
    assert ["torch._dynamo"] == imported


class Answer:
    def __init__(self, found: Any) -> None:
        self.found = found

    def unwrap(self) -> Any:
        return self.found


@pytest.mark.parametrize("status", [status for status in JobStatus if status is not JobStatus.CREATED])
def test_a_job_that_has_begun_does_not_begin_again(status: JobStatus) -> None:
    """Whatever asks for it: only one that is yet to begin gets as far as its function."""
    job = SimpleNamespace(id="job", status=status)
    stash = SimpleNamespace(get_by_uid=lambda _key, _uid: Answer(job))
    server = SimpleNamespace(job_stash=stash, verify_key="root")
    with pytest.raises(RuntimeError, match="has already started once, and a job does not run twice"):
        runner.perform(server, SimpleNamespace(job_id="job"))  # of an item only this is read


@pytest.mark.process
def test_a_job_asks_for_the_role_again(tmp_path: Path) -> None:
    """What came into the queue by whatever way is no service method, and its caller is still a user."""
    from syft.server.credentials import SyftSigningKey
    from syft.service.queue.queue_stash import QueueItem
    from syft.types.errors import SyftException
    from syft.types.uid import UID

    from datasite_worker.credentials import Identity
    from datasite_worker.engine import Hosting
    from datasite_worker.pysyft import server as hosting

    who = Identity(UID().no_dash, "11" * 32, "root@example.com", "a-long-password")
    made = hosting.make_server(Hosting("site", who, tmp_path, dev_mode=False, auto_approval=True, sessions=1))
    stranger = SyftSigningKey.generate().verify_key
    wanted = {"email": "made@example.com", "name": "M", "password": "A-long-passw0rd", "role": ServiceRole.ADMIN}
    for caller in (stranger, made.verify_key):
        item = QueueItem(
            id=UID(), server_uid=made.id, syft_client_verify_key=caller, syft_server_location=made.id, job_id=UID(),
            service="user", method="create", args=[], kwargs=wanted,
            worker_pool=made.get_worker_pool_ref_by_name(made.verify_key),
        )  # fmt: skip
        with pytest.raises(SyftException, match="does not run the job"):
            runner._call(made, item)
    assert ["root@example.com"] == [user.email for user in made.services.user.stash.get_all(made.verify_key).unwrap()]
    made.close()
