"""What a job prints: the whole of it in its log, written seldom, whatever ends the job."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syft.store.document_store_errors import NotFoundException

from datasite_worker.pysyft.jobs import printing
from datasite_worker.pysyft.jobs.printing import Pages, Writer, collect, discard

pytestmark = pytest.mark.process  # it loads PySyft


class Logs:
    """PySyft's stash of logs; ``full`` refuses to write."""

    def __init__(self) -> None:
        self.log: Any = SimpleNamespace(stdout="", stderr="")
        self.written: list[str] = []
        self.full = False
        self.told = threading.Event()

    def get_by_uid(self, _key: str, uid: str) -> Any:
        if self.log is None or uid != "log":
            raise NotFoundException
        return SimpleNamespace(unwrap=lambda: copy(self.log))

    def update(self, _key: str, log: Any) -> Any:
        if self.full:
            raise OSError("database or disk is full")
        self.log = log
        self.written.append(log.stdout)
        self.told.set()
        return SimpleNamespace(unwrap=lambda: log)


class Server:
    verify_key = "root"

    def __init__(self, folder: Path) -> None:
        self.logs, self.folder = Logs(), folder
        self.others: list[str] = []
        log = SimpleNamespace(stash=self.logs, append=lambda **how: self.others.append(how["new_str"]))
        self.services = SimpleNamespace(log=log)

    def get_temp_dir(self, _name: str) -> Path:
        return self.folder

    def print(self, text: str = "", error: str = "", uid: str = "log") -> None:
        self.services.log.append(context=None, uid=uid, new_str=text, new_err=error)


JOB = SimpleNamespace(id="job", log_id="log")


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Any]]:
    registered: dict[str, Callable[[], Any]] = {}
    monkeypatch.setattr(os, "register_at_fork", registered.update)
    return registered


@pytest.fixture
def server(tmp_path: Path, hooks: dict[str, Callable[[], Any]]) -> Server:
    assert not hooks
    return Server(tmp_path)


def test_all_that_was_printed_is_there_at_the_end_and_written_once(server: Server, tmp_path: Path) -> None:
    """A thousand lines of a job that ends within half a second cost one write. No file is left."""
    with Writer(server, JOB).at_work():
        for number in range(1000):
            server.print(f"{number}\n")
        server.print(error="at the end")
    assert ["".join(f"{number}\n" for number in range(1000))] == server.logs.written
    assert ("at the end", []) == (server.logs.log.stderr, list(tmp_path.iterdir()))


def test_it_is_seen_while_the_job_runs(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a moment after it was printed, although nothing else is."""
    monkeypatch.setattr(printing, "PERIOD", 0.01)
    with Writer(server, JOB).at_work():
        server.print("first")
        assert server.logs.told.wait(10)
        assert ["first"] == server.logs.written
    assert ["first"] == server.logs.written


def test_a_function_that_raises_loses_no_line(server: Server) -> None:
    """Nor does one that ends like a program."""

    def leave() -> None:
        with Writer(server, JOB).at_work():
            server.print("last words")
            raise SystemExit

    with pytest.raises(SystemExit):
        leave()
    assert "last words" == server.logs.log.stdout


def test_a_job_that_was_killed_keeps_what_it_printed(server: Server, tmp_path: Path) -> None:
    """The datasite stores it, also where the last character was cut off; and never a second time."""
    pages = Pages.of(server, "job")
    pages.open()
    pages.add("epoch 1\n", "")
    pages.out.write_bytes(pages.out.read_bytes() + "é".encode()[:1])
    collect(server, JOB)
    collect(server, JOB)
    assert (["epoch 1\n\ufffd"], []) == (server.logs.written, list(tmp_path.iterdir()))


def test_a_database_that_takes_nothing_ends_no_job(server: Server, tmp_path: Path) -> None:
    """What cannot be stored now is kept in its file, and stored with the end of the job."""
    server.logs.full = True
    with Writer(server, JOB).at_work():
        server.print("kept")
    collect(server, JOB)
    assert [] == server.logs.written
    server.logs.full = False
    collect(server, JOB)
    assert (["kept"], []) == (server.logs.written, list(tmp_path.iterdir()))


def test_a_disk_that_takes_nothing_ends_no_job(server: Server, tmp_path: Path) -> None:
    """A training goes on without its lines, and the datasite's log says so."""
    with Writer(server, JOB).at_work():
        (tmp_path / "job.out").unlink()
        (tmp_path / "job.out").mkdir()
        server.print("lost")
        (tmp_path / "job.out").rmdir()


def test_a_deleted_job_leaves_nothing(server: Server, tmp_path: Path) -> None:
    """Neither by itself, where its log is gone, nor after it was killed."""
    server.logs.log = None
    with Writer(server, JOB).at_work():
        server.print("to nobody")
    assert [] == list(tmp_path.iterdir())
    Pages.of(server, "job").open()
    discard(server, "job")
    assert [] == list(tmp_path.iterdir())


def test_a_child_that_outlives_its_job_starts_no_new_log(server: Server, tmp_path: Path) -> None:
    """What it prints then would replace the job's."""
    with Writer(server, JOB).at_work():
        server.print("the job's")
    server.print("too late")
    collect(server, JOB)
    assert ("the job's", []) == (server.logs.log.stdout, list(tmp_path.iterdir()))


def test_a_log_has_a_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that prints for ever fills neither the disk nor the database."""
    monkeypatch.setattr(printing, "MOST_BYTES", 10)
    with Writer(server, JOB).at_work():
        for _ in range(5):
            server.print("four")
    assert "fourfourfo\nThe log ends here: it has reached 128 MiB.\n" == server.logs.log.stdout


def test_another_log_is_written_as_ever(server: Server) -> None:
    """Only the job's own is collected."""
    with Writer(server, JOB).at_work():
        server.print("to another", uid="another")
    assert (["to another"], []) == (server.others, server.logs.written)


def test_no_fork_happens_while_a_log_is_stored(server: Server, hooks: dict[str, Callable[[], Any]]) -> None:
    """A child would be born with the locks of the database held, and hang at its first use of it."""
    writer = Writer(server, JOB)
    with writer.at_work():
        hooks["before"]()
        server.print("during a fork")  # a print needs no lock
        assert [] == server.logs.written
        hooks["after_in_parent"]()
    assert ["during a fork"] == server.logs.written
