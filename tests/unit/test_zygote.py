"""What jobs are forked from, when forking fails; and what is ended of those that nobody waits for."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from datasite_worker import children
from datasite_worker.jobs import zygote_life
from datasite_worker.jobs.zygote import Gone, Unborn, Zygote
from datasite_worker.jobs.zygote_life import Life
from fleet_common import signals


@pytest.mark.parametrize("left", [True, False])
def test_an_orphan_that_cannot_be_ended_holds_nobody_up(left: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as root, and we do not; or it has gone by itself meanwhile."""
    there = {4711}

    def refuse(pid: int, _number: int) -> bool:
        if not left:
            there.discard(pid)
        return False

    monkeypatch.setattr(signals, "to_child", refuse)
    children.end_all(lambda: set(there))
    assert left == bool(there)


@pytest.fixture
def channels() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.closing(ours), contextlib.closing(theirs):
        yield ours, theirs


class Shared:
    """Work that shares nothing and does nothing."""

    def prepare(self, _errand: dict[str, Any]) -> object:
        return self

    def run(self, _errand: dict[str, Any], _prepared: object, _nudge: Callable[[], None]) -> None:
        return


class Locked(Shared):
    def prepare(self, _errand: dict[str, Any]) -> object:
        raise RuntimeError("database is locked")


def test_a_job_that_cannot_be_forked_costs_no_other(
    channels: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many processes, say: the zygote tells why, and lives on."""
    ours, theirs = channels
    life = Life(theirs, -1, Shared)

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    life.fork(7, {})
    said = "it could not be started: [Errno 11] Resource temporarily unavailable"
    assert Gone(7, None, said) == Zygote(ours, -1, 0).hear()


def test_what_jobs_share_is_made_at_a_later_try(channels: tuple[socket.socket, socket.socket]) -> None:
    """A locked database ends neither the zygote nor the job, which has not begun."""
    ours, theirs = channels
    Life(theirs, -1, Locked).fork(7, {})
    assert Unborn(7, "database is locked") == Zygote(ours, -1, 0).hear()


@pytest.mark.process
def test_a_job_whose_end_would_not_be_heard_of_is_ended_at_once(
    channels: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many files: it is told of, and those that run go on."""
    ours, theirs = channels
    life = Life(theirs, -1, Shared)
    monkeypatch.setattr(zygote_life, "end_all", lambda _: None)  # this process is no zygote: it has children of its own

    def refuse(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        life.watch(7, child.pid)
        child.returncode = 0
    assert Gone(7, None, "it could not be started: [Errno 24] Too many open files") == Zygote(ours, -1, 0).hear()
    assert not psutil.pid_exists(child.pid)


@pytest.mark.parametrize("make", [lambda: Zygote.forked(Shared), lambda: Zygote.fresh("nothing")])
def test_a_zygote_that_cannot_be_made_leaves_nothing_open(
    make: Callable[[], Zygote], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried again each second."""

    def refuse(*_arguments: object, **_how: object) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    gc.collect()  # else what earlier tests dropped may be closed in between
    before = psutil.Process().num_fds()
    with pytest.raises(BlockingIOError):
        make()
    assert before == psutil.Process().num_fds()


ORPHANS = """
import json, os, subprocess, sys
from datasite_worker import children
from fleet_common.process import become_subreaper
become_subreaper()
score = children.marked()
quiet = subprocess.DEVNULL
sleep = lambda: subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={}, stdout=quiet, stderr=quiet).pid
own = sleep()
child = os.fork()
if child == 0:
    children.mark()
    print(sleep(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
children.end_orphans(score)
print(own, flush=True)
"""


@pytest.mark.process
@pytest.mark.skipif(children.marked() is None, reason="this process has the highest score already")
def test_what_a_marked_process_left_is_ended_and_nothing_else() -> None:
    """Known in a session of its own, without environment or files that tell whose it was."""
    told = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, check=True, timeout=60)
    orphan, own = json.loads(f"[{','.join(told.stdout.split())}]")
    try:
        assert [False, True] == [psutil.pid_exists(orphan), psutil.pid_exists(own)]
    finally:
        psutil.Process(own).kill()


TWO_ZYGOTES = """
import json
from pathlib import Path
from datasite_worker.jobs.zygote import Zygote
one, other = Zygote.forked(lambda: None), Zygote.forked(lambda: None)
def title(zygote):
    return Path(f"/proc/{zygote.pid}/cmdline").read_text()
while not all("forked from here" in title(zygote) for zygote in (one, other)):
    pass
def score(pid):
    return Path(f"/proc/{pid}/oom_score_adj").read_text()
same = score("self") == score(other.pid)
one.bury()
alive = Path(f"/proc/{other.pid}").exists()
other.bury()
print(json.dumps([same, alive, Path(f"/proc/{other.pid}").exists()]))
"""


@pytest.mark.process
def test_a_zygote_ends_no_other_and_is_no_victim_of_the_kernels() -> None:
    """Two datasites may live in one process. Only jobs are marked: a zygote's end would free no memory."""
    told = subprocess.run([sys.executable, "-c", TWO_ZYGOTES], capture_output=True, text=True, check=True, timeout=60)
    assert [True, True, False] == json.loads(told.stdout)
