"""What a datasite keeps itself: its disk's last gigabytes, and the pace of its HTTP; and what it says of its load."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from datasite_worker.means import load
from datasite_worker.means.limits import Bucket, Disk, Limiter, Paced, threads_within
from datasite_worker.pysyft.uploads import UPLOADS, guard
from fleet_common.contract import Limits, StatusDocument, parse_status

GB = 10**9
MB = 10**6


@dataclass
class Space:
    """The free space of every disk, as a test has it."""

    free: int = 100 * GB


@pytest.fixture
def space(monkeypatch: pytest.MonkeyPatch) -> Space:
    made = Space()
    monkeypatch.setattr("datasite_worker.means.limits.shutil.disk_usage", lambda _: made)
    return made


# --- the disk ---


def test_uploads_are_refused_below_the_threshold_and_taken_again_above_it(space: Space, tmp_path: Path) -> None:
    """By itself, and with a margin of five percent, so that a disk at its edge is told once."""
    disk = Disk(tmp_path, 10 * GB)
    said = []
    for gb in (11.0, 9.9, 10.2, 10.5, 10.2):
        space.free = round(gb * GB)
        said.append(bool(disk.refuses()))
    assert [False, True, True, False, False] == said


def test_what_is_said_is_enough_to_act_upon(space: Space, tmp_path: Path) -> None:
    """How much is free, how much is to be kept, that nothing was stored, and whom to ask."""
    space.free = round(1.25 * GB)
    disk = Disk(tmp_path, 5 * GB)
    assert (
        "the datasite's disk is nearly full: 1.25 GB are free, and 5 GB must stay free; uploads are refused until then."
        " Nothing was stored. Ask the datasite's owner to free disk space" == disk.refuses()
    )
    assert "1.25 GB of disk are free, 5 GB must stay free: uploads are refused" == disk.words()


def test_an_upload_that_would_itself_fill_the_disk_is_refused(space: Space, tmp_path: Path) -> None:
    """Others are taken, and it is no state of the datasite."""
    space.free = 6 * GB
    disk = Disk(tmp_path, 5 * GB)
    assert "an upload of 2 GB would leave less" in disk.refuses(2 * GB)
    assert ["", ""] == [disk.refuses(GB // 2), disk.words()]


def test_no_threshold_no_question(tmp_path: Path) -> None:
    """A folder that is gone is not even looked at."""
    disk = Disk(tmp_path / "gone", 0)
    assert ["", ""] == [disk.refuses(10**15), disk.words()]


@dataclass
class Entry:
    """As PySyft's ``CreateBlobStorageEntry``."""

    file_size: int


@dataclass
class Message:
    path: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass
class Call:
    message: Message
    is_valid: bool = True


class Server:
    def __init__(self) -> None:
        self.handled: list[str] = []

    def handle_api_call_with_unsigned_result(
        self, api_call: Any, job_id: Any = None, check_call_location: bool = True
    ) -> str:
        self.handled.append(api_call.message.path)
        return "done"


@pytest.fixture
def full(space: Space, tmp_path: Path) -> tuple[Server, list[str]]:
    """A server on a full disk, and what was noted of refusals."""
    space.free = GB
    server, noted = Server(), list[str]()

    def refusal(why: str) -> str:
        noted.append(why)
        return "refused"

    guard(server, Disk(tmp_path, 5 * GB).refuses, refusal)
    return server, noted


@pytest.mark.parametrize("path", sorted({*UPLOADS, "sync.sync_items", "project.add_event", "project.sync"}))
def test_on_a_full_disk_no_upload_reaches_pysyft(full: tuple[Server, list[str]], path: str) -> None:
    """It is answered with the reason."""
    server, noted = full
    assert "refused" == server.handle_api_call_with_unsigned_result(Call(Message(path)))
    assert [] == server.handled
    assert "the datasite's disk is nearly full: 1 GB are free" in noted[0]


@pytest.mark.parametrize("path", ["action.get", "code.call", "blob_storage.read", "user.get_current_user", "job.get"])
def test_on_a_full_disk_all_else_goes_on(full: tuple[Server, list[str]], path: str) -> None:
    """Reads, logins, trainings and their jobs."""
    server, noted = full
    assert "done" == server.handle_api_call_with_unsigned_result(Call(Message(path)))
    assert ([path], []) == (server.handled, noted)


def test_a_jobs_own_result_is_no_upload(full: tuple[Server, list[str]]) -> None:
    """A training that began before may keep what it found."""
    server, _ = full
    assert "done" == server.handle_api_call_with_unsigned_result(Call(Message("action.set")), job_id="a job")


def test_who_has_no_valid_signature_learns_nothing_of_the_disk(full: tuple[Server, list[str]]) -> None:
    """PySyft refuses it."""
    server, noted = full
    assert "done" == server.handle_api_call_with_unsigned_result(Call(Message("action.set"), is_valid=False))
    assert [] == noted


def test_the_size_that_a_call_announces_counts(space: Space, tmp_path: Path) -> None:
    """PySyft's blob storage is told the size before the first byte comes."""
    space.free = 6 * GB
    server = Server()
    guard(server, Disk(tmp_path, 5 * GB).refuses, lambda why: why)
    answer = server.handle_api_call_with_unsigned_result(Call(Message("blob_storage.allocate", [Entry(2 * GB)])))
    assert "would leave less" in answer
    small = Message("blob_storage.write_to_disk", [], {"data": b"x" * 10})
    assert "done" == server.handle_api_call_with_unsigned_result(Call(small))


# --- the network ---


def test_the_sum_keeps_the_rate() -> None:
    """A burst passes at once; then each piece waits until the sum fits, whatever its size."""
    bucket = Bucket(MB)
    waits = [bucket.take(250_000, 0.0), bucket.take(500_000, 0.0), bucket.take(5 * MB, 0.0)]
    assert [0.0, 0.5, 5.5] == waits
    assert 6.0 == bucket.waited


def test_a_pause_is_not_saved_up() -> None:
    """An hour of silence earns a quarter of a second's traffic, no more."""
    bucket = Bucket(MB)
    bucket.take(250_000, 0.0)
    assert [0.0, 1.0] == [bucket.take(250_000, 3600.0), bucket.take(MB, 3600.0)]


def test_no_limit_no_wait() -> None:
    """Rate 0; and it may be set and lifted while traffic flows."""
    bucket = Bucket()
    assert 0.0 == bucket.take(10**12, 0.0)
    bucket.rate = MB
    assert bucket.take(10 * MB, 1.0) > 9.0
    bucket.rate = 0
    assert 0.0 == bucket.take(10 * MB, 2.0)


class Wire:
    """Plays a request through ``Paced`` with a clock that only its waits move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rate: float) -> None:
        self.now = 0.0
        self.sent: list[dict[str, Any]] = []
        self.got = b""
        self.app = Paced(self._echo, Bucket(rate))
        monkeypatch.setattr("datasite_worker.means.limits.time.monotonic", lambda: self.now)
        monkeypatch.setattr("datasite_worker.means.limits.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    async def _echo(self, _scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            self.got += message["body"]
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": self.got})

    def ask(self, path: str, *chunks: bytes) -> bytes:
        waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
        waiting[-1]["more_body"] = False

        async def receive() -> dict[str, Any]:
            return waiting.pop(0)

        async def send(message: dict[str, Any]) -> None:
            self.sent.append(message)

        asyncio.run(self.app({"type": "http", "path": path}, receive, send))
        return b"".join(message.get("body", b"") for message in self.sent)


def test_both_directions_are_paced_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two megabytes there and back at one a second: four seconds but the burst, in pieces, in order."""
    wire = Wire(monkeypatch, MB)
    chunks = [bytes([number]) * 50_000 for number in range(40)]
    assert b"".join(chunks) == wire.ask("/api/v2/api_call", *chunks)
    assert pytest.approx(3.75, abs=0.01) == wire.now
    bodies = [message for message in wire.sent if message["type"] == "http.response.body"]
    assert [True] * (len(bodies) - 1) + [False] == [message["more_body"] for message in bodies]
    assert len(bodies) > 30


def test_a_probe_is_never_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a busy line would look hung."""
    wire = Wire(monkeypatch, 10.0)
    assert b"x" * 1000 == wire.ask("/factory.status", b"x" * 1000)
    assert 0.0 == wire.now


# --- what is told ---


def test_what_bites_is_told_and_taken_back(space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disk and bandwidth, each in words; traffic that has not waited for half a minute is no longer held back."""
    clock = [100.0]
    monkeypatch.setattr("datasite_worker.means.limits.time.monotonic", lambda: clock[0])
    limiter = Limiter(tmp_path, Limits(disk_free=5 * GB, bandwidth=MB), lambda: None)
    assert {} == limiter.told()
    space.free = GB
    limiter.bucket.take(10 * MB, clock[0])
    clock[0] += 5
    limiter.look()
    assert {
        "disk": "1 GB of disk are free, 5 GB must stay free: uploads are refused",
        "bandwidth": "HTTP is limited to 8 Mbit/s",
    } == limiter.told()
    space.free = 100 * GB
    clock[0] += 31
    limiter.look()
    assert {} == limiter.told()


@dataclass
class Crowd:
    """As the queue of jobs."""

    running: int = 0
    waiting: int = 0
    full_at: float = float("-inf")


def test_trainings_that_wait_are_told_and_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While they wait with the figures; half a minute after the last had to, no more. Who waits between two looks only
    is not missed, and one that waits for another's value, with a place free, waits for no limit."""
    clock = [100.0]
    monkeypatch.setattr("datasite_worker.means.limits.time.monotonic", lambda: clock[0])
    limiter, jobs = Limiter(tmp_path, Limits(sessions=3), lambda: None), Crowd(running=3)

    def looked(seconds: float = 5.0, **what: Any) -> str:
        clock[0] += seconds
        for name, value in what.items():
            setattr(jobs, name, value)
        limiter.look()
        return limiter.told().get("training_sessions", "")

    assert "" == looked()  # the queue is not there yet
    limiter.sessions.jobs = jobs
    assert ["", ""] == [looked(), looked(running=2, waiting=1)]
    limit = "at most 3 may run at the same time"
    assert f"3 trainings run, 2 wait: {limit}" == looked(running=3, waiting=2)
    assert [f"trainings had to wait: {limit}"] * 2 == [looked(waiting=0), looked(20.0)]
    assert "" == looked(10.0)
    assert f"trainings had to wait: {limit}" == looked(full_at=clock[0] + 1.0)
    limiter.use(Limits(sessions=1))
    assert f"3 trainings run, 1 waits: {limit.replace('3', '1')}" == looked(waiting=1)
    limiter.use(Limits(sessions=4))
    assert "" == looked()


def test_other_limits_hold_at_once(space: Space, tmp_path: Path) -> None:
    """A reload may lift or set them while the datasite serves."""
    space.free = 2 * GB
    limiter = Limiter(tmp_path, Limits(), lambda: None)
    assert "" == limiter.disk.refuses()
    limiter.use(Limits(disk_free=5 * GB, bandwidth=77))
    assert (True, 77) == (bool(limiter.disk.refuses()), limiter.bucket.rate)
    limiter.use(Limits())
    assert ("", {}) == (limiter.disk.refuses(), limiter.told())


@pytest.mark.parametrize(("percent", "threads"), [(0.0, 4), (50.0, 1), (150.0, 2), (400.0, 4), (1600.0, 4)])
def test_a_training_takes_no_more_threads_than_its_cpu_limit_is_cores(percent: float, threads: int) -> None:
    """Also by a limit that a reload brought; threads beyond it would only wait for each other."""
    assert threads == threads_within(4, percent)


# --- load ---


def test_the_first_figures_are_real() -> None:
    """A process that has just been computing is seen at once: no zero because nothing came before."""
    load.begin()
    for _ in range(2_000_000):
        pass
    told = load.current_load(12.34)
    assert ["cpu_usage", "memory_usage", "disk_usage", "network_latency"] == list(told)
    assert 12.3 == told["network_latency"]
    assert all(0.0 < told[name] <= 100.0 for name in ("cpu_usage", "memory_usage", "disk_usage"))


def test_figures_are_told_again_for_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A probe every few seconds measures nothing; and the figure is that of the time between."""
    spent = [(100.0, 200.0), (130.0, 240.0), (131.0, 280.0)]
    clock = [0.0]
    monkeypatch.setattr(load, "_cpu_seconds", lambda: spent.pop(0))
    monkeypatch.setattr("datasite_worker.means.load.time.monotonic", lambda: clock[0])
    host, told = load.HostLoad(), []
    for at in (1.0, 4.0, 5.9, 6.1):
        clock[0] = at
        told.append(host.figures()["cpu_usage"])
    assert [75.0, 75.0, 75.0, 2.5] == told


def test_a_datasites_own_memory_is_weighed_with_its_children() -> None:
    """Proportional set size in MiB, of this very process."""
    weight = load.Weight()
    before = weight.memory_mb
    weight.look()
    assert (None, True) == (before, 5.0 < (weight.memory_mb or 0.0) < 5000.0)


def test_the_loaded_status_is_still_a_status() -> None:
    """The supervisor reads it as ever, and keeps nothing that changes with every probe."""
    status = StatusDocument("a", "localhost", 8080, "cpu", "running", limited={"disk": "nearly full"})
    told = load.loaded(status, 1.0, 118.0)
    assert (118.0, 1.0) == (told.memory_mb, told.current_load["network_latency"])
    assert status == parse_status(told.to_json())
