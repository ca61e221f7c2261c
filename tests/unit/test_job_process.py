"""What a job's process arranges for itself before its function runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syft.service.job.job_stash import JobStatus

from datasite_worker.jobs import process


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
    process._append_to(str(log))
    process._append_to(str(log))  # where preparing failed the first time
    process.logger.info("before")
    log.rename(tmp_path / "line.log.1")
    process.logger.info("after")
    assert ["line.log", "line.log.1"] == sorted(path.name for path in tmp_path.iterdir())
    assert log.read_text().endswith(" - INFO - after\n")
    assert 1 == len(log.read_text().splitlines())
    assert (tmp_path / "line.log.1").read_text().endswith(" - INFO - before\n")


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
    with pytest.raises(RuntimeError, match="has begun before, and does not run twice"):
        process.perform(server, SimpleNamespace(job_id="job"))  # type: ignore[arg-type]  # of an item only this is read
