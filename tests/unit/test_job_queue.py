"""The queue of jobs when something beside it fails: the database, the inputs of one job, what jobs are forked from."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import psutil
import pytest
from syft.service.job.job_stash import JobStatus
from syft.service.queue.queue_stash import Status
from syft.store.document_store_errors import NotFoundException
from syft.types.errors import SyftException

from datasite_worker import strays
from datasite_worker.jobs import queue as queue_module
from datasite_worker.jobs import zygote as zygote_module
from datasite_worker.jobs.queue import JobQueue
from datasite_worker.jobs.zygote import Gone, Unborn, Zygote
from datasite_worker.pysyft.activity import Activity
from datasite_worker.pysyft.jobs import process
from datasite_worker.pysyft.jobs.inputs import Unobtainable
from datasite_worker.pysyft.jobs.process import Errand

pytestmark = pytest.mark.process  # it loads PySyft


@dataclass
class Job:
    id: str
    status: JobStatus = JobStatus.CREATED
    resolved: bool = False
    result: Any = None


@dataclass
class Item:
    id: str
    job_id: str
    status: Status = Status.CREATED
    resolved: bool = False
    service: str = "service"
    method: str = "method"
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    value: Any

    def unwrap(self) -> Any:
        return self.value


class Stash:
    """Objects by id; ``full`` refuses to write, as a full disk does."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.full = False

    def get_by_uid(self, _key: str, uid: str) -> Answer:
        if uid not in self.kept:
            raise NotFoundException
        return Answer(copy(self.kept[uid]))

    def get_by_status(self, _key: str, status: Status) -> Answer:
        return Answer([copy(one) for one in self.kept.values() if one.status is status])

    def update(self, _key: str, one: Any) -> Answer:
        if self.full:
            raise OSError("database or disk is full")
        self.kept[one.id] = one
        return Answer(one)


class Server:
    verify_key = "root"

    def __init__(self) -> None:
        self.job_stash, self.queue_stash = Stash(), Stash()


class FakeZygote:
    """Notes what it is asked for; ``gone``: cannot be spoken to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.gone = False

    def run(self, tag: int, errand: dict[str, Any]) -> None:
        if self.gone:
            raise BrokenPipeError
        self.asked.append(("run", errand["item"]))

    def kill(self, tag: int) -> None:
        self.asked.append(("kill", tag))


class Inputs:
    """Of ``bad`` items none can be looked at, of ``lost`` ones the inputs never come, of ``late`` ones not yet."""

    bad, lost, late = "bad", "lost", "late"

    def __init__(self, _server: Server) -> None:
        return

    def are_there(self, item: Item) -> bool:
        if item.id == self.bad:
            raise TypeError("of a kind that nobody expected")
        if item.id == self.lost:
            raise Unobtainable("its input was deleted")
        return item.id != self.late


class Rig:
    def __init__(self, sessions: int = 3) -> None:
        self.server, self.zygote = Server(), FakeZygote()
        self.cut_off: list[tuple[str, str]] = []
        self.queue = JobQueue(
            self.server,
            self.zygote,  # type: ignore[arg-type]  # takes its place
            lambda _running: Errand("line", "/nowhere"),
            Activity(lambda: None),
            lambda job, why: self.cut_off.append((job, why)),
            sessions,
        )

    def put(self, *names: str) -> None:
        for name in names:
            self.server.job_stash.kept[f"job-{name}"] = Job(f"job-{name}")
            self.server.queue_stash.kept[name] = Item(name, f"job-{name}")
        self.queue._look = True
        self.queue._go_round()

    def look(self) -> None:
        """As when a job has queued another one."""
        self.put()

    @property
    def began(self) -> list[Any]:
        return [what for word, what in self.zygote.asked if word == "run"]

    def job(self, name: str) -> Job:
        found: Job = self.server.job_stash.kept[f"job-{name}"]
        return found


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    monkeypatch.setattr(queue_module, "Inputs", Inputs)
    return Rig()


def test_a_job_whose_end_cannot_be_stored_does_not_run_again(rig: Rig) -> None:
    """However often the store is looked at; it is marked as soon as the database takes it, and told of once."""
    rig.put("a")
    rig.server.job_stash.full = True
    rig.queue._over(1, 9)
    rig.look()
    rig.look()
    assert (["a"], JobStatus.CREATED, []) == (rig.began, rig.job("a").status, rig.cut_off)
    rig.server.job_stash.full = False
    rig.server.queue_stash.full = True
    rig.look()
    assert (["a"], Status.CREATED) == (rig.began, rig.server.queue_stash.kept["a"].status)
    rig.server.queue_stash.full = False
    rig.look()
    why = "its process was ended by SIGKILL"
    assert (JobStatus.INTERRUPTED, f"interrupted: {why}") == (rig.job("a").status, rig.job("a").result.message)
    assert (["a"], [("service.method (job-a)", why)]) == (rig.began, rig.cut_off)
    assert rig.server.queue_stash.kept["a"].resolved


def test_whoever_wants_a_job_ended_waits_until_that_is_stored(rig: Rig) -> None:
    """Not only until its process is gone."""
    rig.put("a")
    rig.server.job_stash.full = True
    recall = queue_module._Recall("job-a", "killed on request")  # type: ignore[arg-type]  # a name does
    rig.queue._recalled.append(recall)
    rig.queue._go_round()
    rig.queue._over(1, 9)
    assert ("kill", 1) in rig.zygote.asked
    assert not recall.over.is_set()
    rig.server.job_stash.full = False
    rig.look()
    assert recall.over.is_set()
    assert "interrupted: killed on request" == rig.job("a").result.message


def test_a_kill_of_what_has_just_ended_waits_until_that_is_stored(rig: Rig) -> None:
    """It is not said to be killed before it is marked."""
    rig.put("a")
    rig.server.job_stash.full = True
    rig.queue._over(1, 9)
    recall = queue_module._Recall("job-a", "killed on request")  # type: ignore[arg-type]  # a name does
    rig.queue._recalled.append(recall)
    rig.queue._go_round()
    assert not recall.over.is_set()
    rig.server.job_stash.full = False
    rig.look()
    assert recall.over.is_set()


def test_a_kill_that_fails_takes_no_other_along(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next is seen to in the next round."""
    rig.put("a", "b")
    kill = rig.queue._kill

    def fail(asked: queue_module._Recall) -> bool:
        if asked.job_id == "job-a":
            raise RuntimeError("of the queue's own")
        return kill(asked)

    monkeypatch.setattr(rig.queue, "_kill", fail)
    rig.queue._recalled.extend(queue_module._Recall(f"job-{name}", "on request") for name in "ab")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError):
        rig.queue._go_round()
    rig.queue._go_round()
    assert ("kill", 2) in rig.zygote.asked


def test_one_job_that_cannot_run_holds_up_no_other(rig: Rig) -> None:
    """One that cannot be looked at stays, one whose inputs never come is ended with the cause."""
    rig.put(Inputs.bad, Inputs.lost, Inputs.late, "good")
    assert ["good"] == rig.began
    assert [Inputs.bad, Inputs.late] == list(rig.queue._waiting)
    assert "interrupted: its input was deleted" == rig.job(Inputs.lost).result.message


def test_a_job_that_cannot_be_looked_at_is_told_of_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is looked at each second."""
    with caplog.at_level("INFO", "datasite_worker"), heard(caplog):
        rig.put(Inputs.bad)
        rig.look()
        rig.look()
    assert ["job job-bad cannot be looked at now"] == [record.getMessage() for record in caplog.records]


@contextlib.contextmanager
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whether or not another test has kept ours from the root."""
    queue_module.logger.addHandler(caplog.handler)
    propagate, queue_module.logger.propagate = queue_module.logger.propagate, False
    try:
        yield
    finally:
        queue_module.logger.removeHandler(caplog.handler)
        queue_module.logger.propagate = propagate


def test_a_job_whose_title_cannot_be_read_runs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name of what was called."""

    class Action:
        user_code_id = "code"

    class Locked:
        def get_by_uid(self, _key: str, _uid: str) -> Answer:
            raise OSError("disk I/O error")

    monkeypatch.setattr(queue_module, "ActionQueueItem", Item)
    rig.server.user_code_stash = Locked()  # type: ignore[attr-defined]  # only titles need it
    item = Item("a", "job-a", kwargs={"action": Action()})
    assert "service.method" == rig.queue._title(item)  # type: ignore[arg-type]  # takes its place


def test_the_order_stays_while_there_is_nothing_to_fork_from(rig: Rig) -> None:
    """They are tried again in it."""
    rig.zygote.gone = True
    rig.put("a", "b", "c")
    rig.look()
    assert ([], ["a", "b", "c"], True) == (rig.began, list(rig.queue._waiting), rig.queue._starved)
    rig.zygote.gone = False
    rig.look()
    assert ["a", "b", "c"] == rig.began


def test_a_deleted_job_is_closed_and_never_taken_again(rig: Rig) -> None:
    """It was deleted while it ran."""
    rig.put("a")
    del rig.server.job_stash.kept["job-a"]
    rig.queue._over(1, 0x0100)
    rig.look()
    assert (["a"], True, []) == (rig.began, rig.server.queue_stash.kept["a"].resolved, rig.cut_off)


def test_a_job_that_ends_its_process_without_an_error_is_closed(rig: Rig) -> None:
    """``os._exit(0)``: it has given no result, and is not to be taken from the queue again."""
    rig.put("a")
    rig.queue._over(1, 0)
    rig.look()
    item = rig.server.queue_stash.kept["a"]
    assert (JobStatus.INTERRUPTED, Status.INTERRUPTED, True) == (rig.job("a").status, item.status, item.resolved)
    assert ["a"] == rig.began


def test_what_a_job_has_stored_at_its_end_stays(rig: Rig) -> None:
    """It was killed in the very moment in which it was done, and is heard of as an arrival once more."""
    rig.put("a")
    rig.server.job_stash.kept["job-a"] = Job("job-a", JobStatus.COMPLETED, resolved=True)
    rig.server.queue_stash.kept["a"] = Item("a", "job-a", Status.COMPLETED, resolved=True)
    rig.queue._over(1, 9)
    rig.queue._arrive(rig.server.queue_stash.kept["a"])  # type: ignore[arg-type]  # takes its place
    rig.queue._go_round()
    assert (Status.COMPLETED, ["a"]) == (rig.server.queue_stash.kept["a"].status, rig.began)


def test_a_kill_from_another_thread_takes_back_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is told so."""
    monkeypatch.setattr(queue_module, "Inputs", Inputs)
    rig = Rig(sessions=1)
    rig.put("a", "b")
    killed: list[bool] = []
    thread = threading.Thread(target=lambda: killed.append(rig.queue.kill(["job-b"], "killed on request")))  # type: ignore[list-item]
    thread.start()
    while thread.is_alive():
        rig.queue._go_round()
        thread.join(0.01)
    assert ([True], ["a"], JobStatus.INTERRUPTED) == (killed, rig.began, rig.job("b").status)


class Idle:
    """The worker's end of a zygote that forks nothing: what the zygote would hold is ``told`` and ``nudge``."""

    def __init__(self) -> None:
        ours, self.told, nudges, self.nudge = zygote_module._channels()
        self.process = subprocess.Popen(["/bin/sleep", "600"])
        self.zygote = Zygote(ours, nudges, self.process.pid)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.told.close()
        with contextlib.suppress(OSError):
            os.close(self.nudge)


@pytest.fixture
def idle(rig: Rig) -> Iterator[Idle]:
    made = Idle()
    rig.queue._zygote = made.zygote
    rig.queue._listen(made.zygote)
    with contextlib.closing(made):
        yield made


def turn(queue: JobQueue) -> None:
    for key, _ in queue._selector.select(0):
        key.data()


def fresh_for(monkeypatch: pytest.MonkeyPatch, rig: Rig) -> None:
    """The next zygote is the rig's own, which cannot be listened to."""
    monkeypatch.setattr(Zygote, "fresh", lambda: rig.zygote)
    monkeypatch.setattr(rig.queue, "_listen", lambda _zygote: None)


@pytest.mark.process
def test_an_idle_zygote_that_dies_is_replaced(rig: Rig, idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nudges end first, and alone."""
    idle.process.kill()
    os.close(idle.nudge)
    turn(rig.queue)
    idle.told.close()
    turn(rig.queue)
    fresh_for(monkeypatch, rig)
    rig.put("a")
    assert ["a"] == rig.began
    assert not psutil.pid_exists(idle.process.pid)


@pytest.mark.process
def test_a_burial_that_fails_leaves_no_job_running(rig: Rig, idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it keep the next from running."""
    rig.put("a")

    def fail(_score: int | None) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(zygote_module, "end_orphans", fail)
    idle.process.kill()
    with pytest.raises(PermissionError):
        rig.queue._lost(idle.zygote)
    assert "interrupted: the process that jobs are forked from ended" == rig.job("a").result.message
    fresh_for(monkeypatch, rig)
    rig.put("b")
    assert ["b"] == rig.began


@pytest.mark.process
def test_what_took_the_number_of_a_buried_zygotes_file_is_not_read(rig: Rig, idle: Idle) -> None:
    """Both its channels end in one turn, and the second is heard of when its number is somebody else's."""
    idle.process.kill()
    rig.queue._lost(idle.zygote)
    reading, writing = os.pipe()
    os.write(writing, b"somebody else's")
    os.dup2(reading, idle.zygote.nudges)
    try:
        rig.queue._nudged(idle.zygote)
        assert b"somebody else's" == os.read(reading, 100)
    finally:
        for fd in {reading, writing, idle.zygote.nudges}:
            os.close(fd)


@pytest.mark.parametrize(("error", "left"), [(PermissionError, True), (ProcessLookupError, False)])
def test_an_orphan_that_cannot_be_ended_holds_nobody_up(
    error: type[OSError], left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs as root, and we do not; or it has gone by itself meanwhile."""
    there = {4711}

    def refuse(pid: int, _number: int) -> None:
        if not left:
            there.discard(pid)
        raise error

    monkeypatch.setattr(os, "kill", refuse)
    strays.end_all(lambda: set(there))
    assert left == bool(there)


@pytest.fixture
def channels() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.closing(ours), contextlib.closing(theirs):
        yield ours, theirs


def test_a_job_that_cannot_be_forked_costs_no_other(
    channels: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many processes, say: the zygote tells why, and lives on."""
    ours, theirs = channels
    life = zygote_module._Life(theirs, -1)
    life._prepared = object()

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    life._fork(7, {})
    said = "it could not be started: [Errno 11] Resource temporarily unavailable"
    assert Gone(7, None, said) == Zygote(ours, -1, 0).hear()


def test_what_jobs_share_is_made_at_a_later_try(
    channels: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A locked database ends neither the zygote nor the job, which has not begun."""
    ours, theirs = channels
    life = zygote_module._Life(theirs, -1)

    def locked(_errand: dict[str, Any]) -> None:
        raise SyftException(public_message="database is locked")

    monkeypatch.setattr(process, "prepare", locked)
    life._fork(7, {})
    assert Unborn(7, "database is locked") == Zygote(ours, -1, 0).hear()


@pytest.mark.process
def test_a_job_whose_end_would_not_be_heard_of_is_ended_at_once(
    channels: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many files: it is told of, and those that run go on."""
    ours, theirs = channels
    life = zygote_module._Life(theirs, -1)
    monkeypatch.setattr(life, "_end_strays", lambda: None)  # this process is no zygote: it has children of its own

    def refuse(_pid: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with subprocess.Popen(["/bin/sleep", "600"]) as child:
        life._watch(7, child.pid)
        child.returncode = 0
    assert Gone(7, None, "it could not be started: [Errno 24] Too many open files") == Zygote(ours, -1, 0).hear()
    assert not psutil.pid_exists(child.pid)


def hear(rig: Rig, monkeypatch: pytest.MonkeyPatch, *told: object) -> None:
    for one in told:
        monkeypatch.setattr(rig.zygote, "hear", lambda one=one: one, raising=False)
        rig.queue._heard(rig.zygote)  # type: ignore[arg-type]  # takes its place


def test_jobs_that_were_not_begun_wait_at_their_old_places(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried again, not at once, and told of once each."""
    rig.put("a", "b", "c", "d")
    hear(rig, monkeypatch, Unborn(1, "locked"), Unborn(2, "locked"), Unborn(3, "locked"))
    rig.look()
    assert (["a", "b", "c"], ["a", "b", "c", "d"], True) == (rig.began, list(rig.queue._waiting), rig.queue._starved)
    rig.queue._not_before = 0
    rig.look()
    hear(rig, monkeypatch, Unborn(5, "locked"), Unborn(4, "locked"))
    assert ["a", "b", "d"] == list(rig.queue._waiting)
    rig.queue._not_before = 0
    rig.look()
    assert ["a", "b", "c"] * 2 + ["a", "b"] == rig.began
    assert [] == rig.cut_off


def test_a_job_that_was_not_begun_is_not_begun_again_where_it_is_to_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was recalled while the zygote tried."""
    rig.put("a")
    recall = queue_module._Recall("job-a", "killed on request")  # type: ignore[arg-type]  # a name does
    rig.queue._recalled.append(recall)
    rig.queue._go_round()
    hear(rig, monkeypatch, Unborn(1, "locked"))
    assert recall.over.is_set()
    assert ("interrupted: killed on request", {}) == (rig.job("a").result.message, rig.queue._waiting)


@pytest.mark.parametrize("make", [Zygote.forked, Zygote.fresh])
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
from datasite_worker import strays
from fleet_common.process import become_subreaper
become_subreaper()
score = strays.marked()
quiet = subprocess.DEVNULL
sleep = lambda: subprocess.Popen(["/bin/sleep", "600"], start_new_session=True, env={}, stdout=quiet, stderr=quiet).pid
own = sleep()
child = os.fork()
if child == 0:
    strays.mark()
    print(sleep(), flush=True)
    os._exit(0)
os.waitpid(child, 0)
strays.end_orphans(score)
print(own, flush=True)
"""


@pytest.mark.process
@pytest.mark.skipif(strays.marked() is None, reason="this process has the highest score already")
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
one, other = Zygote.forked(), Zygote.forked()
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
