"""The queue of jobs when something beside it fails: the database, the inputs of one job, what jobs are forked from.

Over PySyft's stores as the queue knows them, with stashes of our own; turn by turn, without the queue's thread.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import psutil
import pytest
from syft.service.job.job_stash import JobStatus
from syft.service.queue.queue_stash import Status
from syft.store.document_store_errors import NotFoundException
from syft.types.uid import UID

from datasite_worker.activity import Activity
from datasite_worker.jobs import queue as queue_module
from datasite_worker.jobs import zygote as zygote_module
from datasite_worker.jobs.errand import Errand
from datasite_worker.jobs.queue import GIVE_UP, LOOK_AGAIN, SELDOM, JobQueue
from datasite_worker.jobs.state import QueuedJob
from datasite_worker.jobs.store import Ending, Unobtainable
from datasite_worker.jobs.zygote import Gone, Unborn, Zygote
from datasite_worker.pysyft.jobs import store as store_module
from datasite_worker.pysyft.jobs.store import PySyftJobs

NAMES = ("a", "b", "c", "d", "bad", "lost", "late", "good")
PLACES = {name: UID(UUID(int=number + 1)) for number, name in enumerate(NAMES)}
BAD, LOST, LATE = (PLACES[name] for name in ("bad", "lost", "late"))
KILLED = "its process was killed by SIGKILL"

pytestmark = pytest.mark.process  # it loads PySyft


@dataclass
class Job:
    id: str
    status: JobStatus = JobStatus.CREATED
    resolved: bool = False
    result: Any = None


@dataclass
class Item:
    id: UID
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
        self.kept: dict[Any, Any] = {}
        self.full = False

    def get_by_uid(self, _key: str, uid: Any) -> Answer:
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

    def set_placeholder(self, _key: str, one: Any) -> Answer:
        return self.update(_key, one)


class Server:
    verify_key = "root"

    def get_temp_dir(self, _name: str) -> Path:
        return Path("/nonexistent")  # no job has printed

    def __init__(self) -> None:
        self.job_stash, self.queue_stash = Stash(), Stash()


class FakeZygote:
    """Notes what it is asked for. ``gone``: cannot be spoken to. ``fails``: what the next kill raises."""

    def __init__(self) -> None:
        self.control, self._far = socket.socketpair()
        self.nudges, self._nudge = os.pipe()
        self.asked: list[tuple[str, Any]] = []
        self.gone = False
        self.fails: Exception | None = None
        self._words: list[object] = []

    def close(self) -> None:
        self.control.close()
        self._far.close()
        os.close(self.nudges)
        os.close(self._nudge)

    def run(self, tag: int, errand: dict[str, Any]) -> None:
        if self.gone:
            raise BrokenPipeError
        self.asked.append(("run", errand["item"]))

    def kill(self, tag: int) -> None:
        fails, self.fails = self.fails, None
        if fails is not None:
            raise fails
        self.asked.append(("kill", tag))

    def hear(self) -> object:
        self.control.recv(1)
        return self._words.pop(0)

    def say(self, word: object) -> None:
        self._words.append(word)
        self._far.send(b".")

    def nudge(self) -> None:
        os.write(self._nudge, b".")


class Inputs:
    """One item cannot be looked at, the inputs of another never come, those of a third have not come yet."""

    def __init__(self, _server: Server) -> None:
        return

    def are_there(self, item: Item) -> bool:
        if item.id == BAD:
            raise TypeError("of a kind that nobody expected")
        if item.id == LOST:
            raise Unobtainable("its input was deleted")
        return bool(item.id != LATE)


class Rig:
    """A queue over PySyft's stores, whose zygote says what the test wants."""

    def __init__(self, sessions: int = 3, zygote: Any = None) -> None:
        self.server, self.zygote, self.now = Server(), FakeZygote(), 100.0
        self.cut_off: list[tuple[str, str]] = []
        self.store = PySyftJobs(self.server)
        self.queue = JobQueue(
            self.store,
            zygote or cast("Zygote", self.zygote),  # a stand-in: nothing is forked
            lambda: cast("Zygote", self.zygote),
            lambda _running: Errand("line", "/nowhere"),
            Activity(lambda: None),
            lambda job, why: self.cut_off.append((job, why)),
            sessions,
            clock=lambda: self.now,
        )
        self.queue.attach()

    def put(self, *names: str) -> bool:
        """They are in the store, and the queue is told so as by a job that has queued them. What ``turn`` says."""
        for name in names:
            self.server.job_stash.kept[f"job-{name}"] = Job(f"job-{name}")
            self.server.queue_stash.kept[PLACES[name]] = Item(PLACES[name], f"job-{name}")
        self.zygote.nudge()
        return self.queue.turn(0)

    def look(self) -> bool:
        return self.put()

    def queue_up(self, name: str) -> bool:
        """As a client does, of whose jobs the queue is told one by one."""
        self.server.job_stash.kept[f"job-{name}"] = Job(f"job-{name}")
        self.server.queue_stash.set_placeholder("root", Item(PLACES[name], f"job-{name}"))
        return self.queue.turn(0)

    def hear(self, *words: object) -> None:
        for word in words:
            self.zygote.say(word)
            self.queue.turn(0)

    def kill(self, *names: str) -> threading.Event:
        """As a client does, which waits in a thread of its own; set when it is told that they have ended."""
        told, asked = threading.Event(), threading.Event()

        def kill() -> None:
            asked.set()
            if self.queue.kill([f"job-{name}" for name in names], "killed on request"):
                told.set()

        threading.Thread(target=kill, daemon=True).start()
        asked.wait(10)
        return told

    def turn_until(self, done: threading.Event) -> None:
        for _ in range(1000):
            self.queue.turn(0)
            if done.wait(0.01):
                return
        raise AssertionError("nobody was told that the job has ended")

    @property
    def began(self) -> list[str]:
        return [_name(what) for word, what in self.zygote.asked if word == "run"]

    @property
    def waiting(self) -> list[str]:
        return [_name(one.id) for one in self.queue.state.waiting]

    def job(self, name: str) -> Job:
        found: Job = self.server.job_stash.kept[f"job-{name}"]
        return found

    def item(self, name: str) -> Item:
        found: Item = self.server.queue_stash.kept[PLACES[name]]
        return found


def _name(place: str) -> str:
    return next(name for name, uid in PLACES.items() if str(uid) == place)


Rigs = Callable[..., Rig]


@pytest.fixture
def rigs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rigs]:
    monkeypatch.setattr(store_module, "Inputs", Inputs)
    with contextlib.ExitStack() as stack:

        def make(**how: Any) -> Rig:
            made = Rig(**how)
            stack.enter_context(contextlib.closing(made.zygote))
            return made

        yield make


@pytest.fixture
def rig(rigs: Rigs) -> Rig:
    return rigs()


def test_a_job_whose_end_cannot_be_stored_does_not_run_again(rig: Rig) -> None:
    """However often the store is looked at; it is marked as soon as the database takes it, and told of once."""
    rig.put("a")
    rig.server.job_stash.full = True
    rig.hear(Gone(1, 9))
    rig.look()
    assert rig.look()
    assert (["a"], JobStatus.CREATED, []) == (rig.began, rig.job("a").status, rig.cut_off)
    rig.server.job_stash.full = False
    rig.server.queue_stash.full = True
    rig.look()
    assert (["a"], Status.CREATED) == (rig.began, rig.item("a").status)
    rig.server.queue_stash.full = False
    rig.look()
    assert (JobStatus.INTERRUPTED, f"interrupted: {KILLED}") == (rig.job("a").status, rig.job("a").result.message)
    assert (["a"], [("service.method (job-a)", KILLED)]) == (rig.began, rig.cut_off)
    assert rig.item("a").resolved


def test_whoever_wants_a_job_ended_waits_until_that_is_stored(rig: Rig) -> None:
    """Not only until its process is gone."""
    rig.put("a")
    rig.server.job_stash.full = True
    told = rig.kill("a")
    while ("kill", 1) not in rig.zygote.asked:
        rig.queue.turn(0.01)
    rig.hear(Gone(1, 9))
    assert not told.is_set()
    rig.server.job_stash.full = False
    rig.turn_until(told)
    assert "interrupted: killed on request" == rig.job("a").result.message


def test_a_kill_of_what_has_just_ended_waits_until_that_is_stored(rig: Rig) -> None:
    """It is not said to be killed before it is marked."""
    rig.put("a")
    rig.server.job_stash.full = True
    rig.hear(Gone(1, 9))
    told = rig.kill("a")
    assert not told.wait(0.1)
    assert rig.queue.turn(1.0)
    assert not told.is_set()
    rig.server.job_stash.full = False
    rig.turn_until(told)


def test_a_kill_that_fails_takes_no_other_along(rig: Rig) -> None:
    """The next is seen to in the next round."""
    rig.put("a", "b")
    rig.zygote.fails = RuntimeError("of the zygote's own")
    rig.kill("a", "b")
    with pytest.raises(RuntimeError):
        rig.turn_until(threading.Event())
    rig.queue.turn(0)
    assert ("kill", 2) in rig.zygote.asked


def test_one_job_that_cannot_run_holds_up_no_other(rig: Rig) -> None:
    """One that cannot be looked at stays, one whose inputs never come is ended with the cause."""
    rig.put("bad", "lost", "late", "good")
    assert ["good"] == rig.began
    assert ["bad", "late"] == rig.waiting
    assert "interrupted: its input was deleted" == rig.job("lost").result.message


def test_a_job_that_cannot_be_looked_at_is_told_of_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """It is looked at each second."""
    with caplog.at_level("INFO", "datasite_worker"), heard(caplog):
        rig.put("bad")
        rig.look()
        assert rig.look()
    assert ["cannot read what job job-bad needs; trying again"] == [record.getMessage() for record in caplog.records]


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

    monkeypatch.setattr(store_module, "ActionQueueItem", Item)
    rig.server.user_code_stash = Locked()  # type: ignore[attr-defined]  # only titles need it
    item = Item(PLACES["a"], "job-a", kwargs={"action": Action()})
    assert "service.method" == rig.store.title(QueuedJob(str(item.id), item.job_id, item))


def test_the_order_stays_while_there_is_nothing_to_fork_from(rig: Rig) -> None:
    """They are tried again in it."""
    rig.zygote.gone = True
    rig.put("a", "b", "c")
    assert rig.look()
    assert ([], ["a", "b", "c"]) == (rig.began, rig.waiting)
    rig.zygote.gone = False
    rig.look()
    assert ["a", "b", "c"] == rig.began


def test_a_deleted_job_is_closed_and_never_taken_again(rig: Rig) -> None:
    """It was deleted while it ran."""
    rig.put("a")
    del rig.server.job_stash.kept["job-a"]
    rig.hear(Gone(1, 0x0100))
    rig.look()
    assert (["a"], True, []) == (rig.began, rig.item("a").resolved, rig.cut_off)


def test_a_job_that_ends_its_process_without_an_error_is_closed(rig: Rig) -> None:
    """``os._exit(0)``: it has given no result, and is not to be taken from the queue again."""
    rig.put("a")
    rig.hear(Gone(1, 0))
    rig.look()
    item = rig.item("a")
    assert (JobStatus.INTERRUPTED, Status.INTERRUPTED, True) == (rig.job("a").status, item.status, item.resolved)
    assert ["a"] == rig.began


def test_what_a_job_has_stored_at_its_end_stays(rig: Rig) -> None:
    """It was killed in the very moment in which it was done, and is heard of as an arrival once more."""
    rig.put("a")
    rig.server.job_stash.kept["job-a"] = Job("job-a", JobStatus.COMPLETED, resolved=True)
    done = Item(PLACES["a"], "job-a", Status.COMPLETED, resolved=True)
    rig.hear(Gone(1, 9))
    rig.server.queue_stash.set_placeholder("root", done)
    rig.queue.turn(0)
    assert (Status.COMPLETED, ["a"]) == (rig.item("a").status, rig.began)


def test_a_job_that_a_client_queues_begins_at_once(rig: Rig) -> None:
    """Nobody looks through the whole store for it."""
    rig.look()
    assert not rig.queue_up("a")
    assert ["a"] == rig.began


def test_a_kill_from_another_thread_takes_back_what_waits(rigs: Rigs) -> None:
    """And it is told so."""
    rig = rigs(sessions=1)
    rig.put("a", "b")
    rig.turn_until(rig.kill("b"))
    assert (["a"], JobStatus.INTERRUPTED) == (rig.began, rig.job("b").status)


class Idle:
    """The worker's end of a zygote that forks nothing: what the zygote would hold is ``told`` and ``nudge``."""

    def __init__(self) -> None:
        ours, self.told, nudges, self.nudge = zygote_module.channels()
        self.process = subprocess.Popen(["/bin/sleep", "600"])
        self.zygote = Zygote(ours, nudges, self.process.pid)

    def die(self) -> None:
        """With its channels."""
        self.process.kill()
        self.told.close()
        os.close(self.nudge)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.told.close()
        with contextlib.suppress(OSError):
            os.close(self.nudge)


@pytest.fixture
def idle() -> Iterator[Idle]:
    with contextlib.closing(Idle()) as made:
        yield made


@pytest.mark.process
def test_an_idle_zygote_that_dies_is_replaced(rigs: Rigs, idle: Idle) -> None:
    """Its nudges end first, and alone."""
    rig = rigs(zygote=idle.zygote)
    idle.process.kill()
    os.close(idle.nudge)
    rig.queue.turn(0)
    idle.told.close()
    rig.queue.turn(0)
    rig.queue_up("a")
    assert ["a"] == rig.began
    assert not psutil.pid_exists(idle.process.pid)


@pytest.mark.process
def test_a_burial_that_fails_leaves_no_job_running(rigs: Rigs, idle: Idle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it keep the next from running."""
    rig = rigs(zygote=idle.zygote)
    rig.queue_up("a")
    assert 1 == rig.queue.running

    def fail(_score: int | None) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(zygote_module, "end_orphans", fail)
    idle.die()
    with pytest.raises(PermissionError):
        rig.queue.turn(0)
    assert "interrupted: the process that forks jobs ended" == rig.job("a").result.message
    rig.queue_up("b")
    assert ["b"] == rig.began


@pytest.mark.process
def test_what_took_the_number_of_a_buried_zygotes_file_is_not_read(
    rigs: Rigs, idle: Idle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both its channels end in one turn, and the second is heard of when its number is somebody else's."""
    rig = rigs(zygote=idle.zygote)
    rig.queue.turn(0)
    reading, writing = os.pipe()
    os.write(writing, b"somebody else's")
    bury, buried = Zygote.bury, []

    def buried_and_taken(zygote: Zygote) -> None:
        bury(zygote)
        os.dup2(reading, zygote.nudges)
        buried.append(zygote)

    monkeypatch.setattr(Zygote, "bury", buried_and_taken)
    idle.die()
    try:
        rig.queue.turn(0)
        assert [idle.zygote] == buried
        assert b"somebody else's" == os.read(reading, 100)
    finally:
        for fd in {reading, writing, idle.zygote.nudges}:
            os.close(fd)


def test_jobs_that_were_not_begun_wait_at_their_old_places(rig: Rig) -> None:
    """They are tried again, not at once, and told of once each."""
    rig.put("a", "b", "c", "d")
    rig.hear(Unborn(1, "locked"), Unborn(2, "locked"), Unborn(3, "locked"))
    assert rig.look()
    assert (["a", "b", "c"], ["a", "b", "c", "d"]) == (rig.began, rig.waiting)
    rig.now += LOOK_AGAIN
    rig.look()
    rig.hear(Unborn(5, "locked"), Unborn(4, "locked"))
    assert ["a", "b", "d"] == rig.waiting
    rig.now += LOOK_AGAIN
    rig.look()
    assert ["a", "b", "c"] * 2 + ["a", "b"] == rig.began
    assert [] == rig.cut_off


def test_a_job_that_can_never_be_started_ends_with_the_reason(rig: Rig) -> None:
    """After ten minutes, in which it is tried ever less often; the next job has its own ten minutes."""
    tries = []
    rig.put("a")
    began, last = rig.now, 1
    while rig.waiting or rig.queue.running:
        tries.append(rig.now - began)
        rig.hear(Unborn(last, "no memory"))
        while rig.waiting:
            rig.now += LOOK_AGAIN
            rig.look()
        last += 1
    assert "interrupted: it could not be started for 10 minutes: no memory" == rig.job("a").result.message
    assert [("service.method (job-a)", "it could not be started for 10 minutes: no memory")] == rig.cut_off
    assert ([0, 1, 2, 4, 8, 16, 32, 64, 124], 604) == (tries[:9], tries[-1])
    rig.put("b")
    rig.now += SELDOM
    rig.look()
    assert ["b"] == rig.began[-1:]


def test_a_job_that_can_never_be_looked_at_ends_with_the_reason(rig: Rig) -> None:
    """Whoever waits for it is told, and so is the operator."""
    rig.put("bad")
    for _ in range(2):
        assert rig.look()
        rig.now += GIVE_UP / 2
    assert "bad" in rig.waiting
    rig.look()
    assert ("interrupted: it could not be started for 10 minutes: its inputs cannot be read (TypeError)", []) == (
        rig.job("bad").result.message,
        rig.waiting,
    )


def test_a_job_ends_with_the_reason_where_there_is_nothing_to_fork_from(rig: Rig) -> None:
    """For ten minutes."""
    rig.zygote.gone = True
    rig.put("a")
    rig.now += GIVE_UP
    rig.look()
    assert "the process that forks jobs is not available" in rig.job("a").result.message


def test_an_end_that_cannot_be_stored_is_tried_ever_less_often(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each minute in the end; and it is stored when the database takes it."""
    rig.put("a")
    rig.server.job_stash.full = True
    tries: list[float] = []
    store_end = rig.store.end

    def end(job: QueuedJob, why: str) -> Ending:
        tries.append(rig.now - 100.0)
        return store_end(job, why)

    monkeypatch.setattr(rig.store, "end", end)
    rig.hear(Gone(1, 9))
    for _ in range(300):
        rig.now += 1.0
        rig.look()
    assert [1, 2, 4, 8, 16, 32, 64, 124, 184, 244] == [one for one in tries if one]
    rig.server.job_stash.full = False
    rig.now += SELDOM
    rig.look()
    assert JobStatus.INTERRUPTED is rig.job("a").status


def test_a_job_that_was_not_begun_is_not_begun_again_where_it_is_to_end(rig: Rig) -> None:
    """It was recalled while the zygote tried."""
    rig.put("a")
    told = rig.kill("a")
    while ("kill", 1) not in rig.zygote.asked:
        rig.queue.turn(0.01)
    rig.hear(Unborn(1, "locked"))
    rig.turn_until(told)
    assert ("interrupted: killed on request", []) == (rig.job("a").result.message, rig.waiting)
