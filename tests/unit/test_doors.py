"""Sockets, lock and logs that somebody has removed are made again, without anybody's help."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fleet_common import folders
from fleet_common.contract import StatusDocument
from supervisor.effects import places
from supervisor.effects.board import Board
from supervisor.effects.control import ControlServer
from supervisor.effects.doors import Doors
from supervisor.effects.inbox import Inbox
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.effects.service import ServiceThread
from supervisor.messages import ReloadAsked
from supervisor.record import WorkerRecord
from supervisor.snapshot import SupervisorFacts, take
from supervisor.spec import DatasiteSpec
from tests.unit.fakes import fleet

pytestmark = pytest.mark.process


@pytest.fixture
def service() -> Iterator[ServiceThread]:
    thread = ServiceThread()
    yield thread
    thread.close()


def test_what_is_lost_is_told_until_it_is_there_again(tmp_path: Path) -> None:
    """Removed, or replaced by another file of that name; what is as it was is not told."""
    told = threading.Event()
    doors = Doors(told.set, period=0.01)
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.touch()
    doors.keep(one, two)
    assert [] == doors.lost()
    one.unlink()
    assert told.wait(10.0)
    assert [one] == doors.lost()
    one.touch()
    two.rename(one)
    assert [one, two] == doors.lost()
    two.touch()
    doors.keep(one, two)
    assert [] == doors.lost()
    doors.close()


def test_pulses_are_heard_at_a_socket_that_was_made_again(tmp_path: Path) -> None:
    """A worker knows its name only."""
    inbox, path = Inbox(tmp_path / "pulse.sock"), tmp_path / "pulse.sock"
    path.unlink()
    inbox.reopen()
    said = StatusDocument("a", "localhost", 8080, "cpu", "running", generation=2, pid=9)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
        worker.sendto(said.to_json(), str(path))
    assert [said] == inbox.wait(10.0)
    inbox.ring()
    assert [] == inbox.wait(10.0)
    inbox.close()


def test_control_answers_at_a_socket_that_was_made_again(tmp_path: Path, service: ServiceThread) -> None:
    """And a supervisor whose socket is gone is still known to be there."""
    config, path = fleet(DatasiteSpec("alpha", 8080)), tmp_path / "control.sock"
    board, about = Board(config), SupervisorFacts(1, "0", 0.0, False, 0)
    picture = lambda pinned: take(config, pinned.records, {}, about, 1.0, "now")  # noqa: E731 - what a server is given
    server = ControlServer(board, picture, lambda _: None, lambda: ReloadAsked(config))
    board.pin(config, {"alpha": WorkerRecord("alpha")}, stopping=False)
    server.open(path, service)
    path.unlink()
    assert places.listens(tmp_path)
    server.reopen()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://fleet", timeout=20.0) as client:
        assert 200 == client.get("/v1/status").status_code
    board.close()
    server.close()
    assert not places.listens(tmp_path / "other")


def test_run_files_are_written_again(tmp_path: Path) -> None:
    """Of those that still run."""
    files = RunFiles(tmp_path / "run")
    written = [RunFile(name, 2, 77, 5, boot_id(), "f") for name in ("a", "b", "c")]
    for run in written:
        files.write(run)
    files.remove("c")
    shutil.rmtree(tmp_path / "run")
    files.restore()
    assert written[:2] == RunFiles(tmp_path / "run").read_all()


def test_a_log_comes_back_with_its_folder(tmp_path: Path) -> None:
    """The next line makes both again; one that somebody has moved away is left alone."""
    folder = tmp_path / "logs"
    log = folders.RotatingLog(folder / "fleet.log", size=10_000, backups=1)

    def say(words: str) -> None:
        log.handle(logging.makeLogRecord({"msg": words}))

    say("first")
    shutil.rmtree(folder)
    say("second")
    assert "second\n" == (folder / "fleet.log").read_text()
    (folder / "fleet.log").rename(folder / "kept")
    say("third")
    log.close()
    assert ("second\n", "third\n") == ((folder / "kept").read_text(), (folder / "fleet.log").read_text())
