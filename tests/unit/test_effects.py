"""Each effect does the one outside thing it says, against the real kernel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_common import signals
from fleet_common.contract import StatusDocument
from fleet_common.layout import WorkerFolder
from fleet_common.unix_path import short_path
from supervisor.effects import lock, processes
from supervisor.effects.board import Board
from supervisor.effects.control import ControlServer
from supervisor.effects.gauges import Gauges
from supervisor.effects.inbox import Inbox
from supervisor.effects.probe_keys import ProbeKeyFiles
from supervisor.effects.prober import Prober, address
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.effects.service import ServiceThread
from supervisor.facts import OperatorAsked, ProbeAnswered
from supervisor.messages import DownAsked, Exited, ReloadAsked, Signalled
from supervisor.orders import Probe
from supervisor.record import ExitKind, OperatorRequest, WorkerRecord
from supervisor.snapshot import SupervisorFacts, take
from supervisor.spec import DatasiteSpec
from tests.unit.fakes import fleet

pytestmark = pytest.mark.process

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Inbox]:
    opened = Inbox(tmp_path / "pulse.sock")
    yield opened
    opened.close()


def test_who_comes_too_late_to_a_closed_inbox_harms_nobody(tmp_path: Path) -> None:
    """A thread may outlive it by a moment: its number may be another's file by then."""
    closed = Inbox(tmp_path / "pulse.sock")
    bell = closed._bell
    closed.close()
    reused = os.eventfd(0, os.EFD_NONBLOCK)
    os.dup2(reused, bell)
    closed.post(DownAsked())
    with pytest.raises(BlockingIOError):
        os.eventfd_read(bell)
    for number in {reused, bell}:
        os.close(number)


@pytest.fixture
def service() -> Iterator[ServiceThread]:
    thread = ServiceThread()
    yield thread
    thread.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER, start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_an_exit_wakes_the_wait(inbox: Inbox, sleeper: subprocess.Popen[bytes]) -> None:
    """The kernel tells the end of a watched process; nobody polls."""
    inbox.watch("a", 3, sleeper.pid, os.pidfd_open(sleeper.pid))
    sleeper.kill()
    assert [Exited("a", 3, sleeper.pid)] == inbox.wait(10.0)
    assert [] == inbox.wait(0.0)


FIRST, SECOND = OperatorAsked("a", OperatorRequest.STOP), OperatorAsked("b", OperatorRequest.START)


def test_a_posted_message_wakes_the_wait(inbox: Inbox) -> None:
    """Messages of other threads come in the order in which they were posted."""

    def post() -> None:
        inbox.post(FIRST)
        inbox.post(SECOND)

    threading.Timer(0.05, post).start()
    heard = inbox.wait(10.0)
    while len(heard) < 2:
        heard += inbox.wait(10.0)
    assert [FIRST, SECOND] == heard


def test_a_signal_becomes_a_message(inbox: Inbox) -> None:
    """The handler does nothing; the wait tells."""
    before = signal.getsignal(signal.SIGUSR1)
    try:
        inbox.catch(signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert [Signalled("SIGUSR1")] == inbox.wait(10.0)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_pulse_is_heard_and_garbage_is_not(inbox: Inbox, tmp_path: Path) -> None:
    """A worker's datagram becomes its status document, a stray one nothing."""
    said = StatusDocument("a", "localhost", 8080, "cpu", "running", generation=2, pid=9)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
        worker.connect(str(tmp_path / "pulse.sock"))
        for raw in (b"\xff garbage", b"[1]", b"", b"[" * 30_000, said.to_json()):
            worker.send(raw)
    assert [said] == inbox.wait(10.0)
    assert 0o600 == (tmp_path / "pulse.sock").stat().st_mode & 0o777


def test_a_deep_state_folder_still_has_sockets(tmp_path: Path) -> None:
    """Unix addresses end at 107 bytes; a path may be longer."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server, short_path(deep / "control.sock") as address:
        server.bind(address)
    assert (deep / "control.sock").is_socket()


def test_a_process_is_its_pid_and_its_start_time(sleeper: subprocess.Popen[bytes]) -> None:
    """The same pid with another start time is somebody else, and a zombie is nobody."""
    created = signals.start_ticks(sleeper.pid) or 0
    assert signals.is_same(sleeper.pid, created)
    assert not signals.is_same(sleeper.pid, created + 1)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not signals.is_same(sleeper.pid, created)


def test_a_group_is_swept_whole() -> None:
    """What a worker forked dies with it: its port is free for the next."""
    forking = "import os,time; os.fork(); print('x', flush=True); time.sleep(600)"
    leader = subprocess.Popen([sys.executable, "-c", forking], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    with leader, leader.stdout as said:
        said.readline(), said.readline()
        signals.send_group(leader.pid, signals.start_ticks(leader.pid) or 0, signal.SIGKILL)
        assert b"" == said.read()  # the pipe ends when the last of the group is gone


@pytest.mark.parametrize(
    ("code", "kind", "detail"),
    [
        (0, ExitKind.CLEAN, "exit code 0"),
        (70, ExitKind.FAILURE, "exit code 70"),
        (-9, ExitKind.SIGNAL, "SIGKILL"),
        (-11, ExitKind.SIGNAL, "SIGSEGV"),
        (-34, ExitKind.SIGNAL, "SIGRTMIN"),
        (-40, ExitKind.SIGNAL, "signal 40"),
    ],
)
def test_exit_codes_are_told_in_words(code: int, kind: ExitKind, detail: str) -> None:
    """An operator reads the signal's name, not a negative number."""
    cause = processes.cause_of_code(code)
    assert (kind, detail, code) == (cause.kind, cause.detail, cause.code)


def test_one_lock_per_state_folder(tmp_path: Path) -> None:
    """The second one is refused and can name the first; a dead holder's lock is free."""
    path = tmp_path / "supervisor.lock"
    held = lock.lock(path)
    assert held is not None
    assert None is lock.lock(path)
    assert os.getpid() == lock.lock_holder(path)
    os.close(held)
    again = lock.lock(path)
    assert again is not None
    os.close(again)


def test_run_files_survive_and_broken_ones_do_not_matter(tmp_path: Path) -> None:
    """What can be read of this boot is told; a torn file is set aside, and one of another boot removed."""
    files = RunFiles(tmp_path / "run")
    mine = RunFile("a", 2, 77, 5, boot_id(), "f")
    files.write(mine)
    files.write(RunFile("b", 2, 78, 5, "another boot", "f"))
    (tmp_path / "run" / "c.json").write_text('{"name": "c", "gen')
    assert [mine] == files.read_all()
    assert ["a.json", "c.json.damaged"] == sorted(path.name for path in (tmp_path / "run").iterdir())


def test_gauges_measure_a_living_process(sleeper: subprocess.Popen[bytes]) -> None:
    """Memory is proportional and in MiB; a process that is gone has no measure."""
    measures = Gauges().read({"me": os.getpid(), "gone": 2**22 + 1}, 100.0)
    assert 5 < (measures["me"].memory_mb or 0) < 2000
    assert (None, None) == (measures["gone"].cpu_percent, measures["gone"].memory_mb)


def test_probes_reach_a_worker_whatever_it_binds() -> None:
    """This host asks on loopback when a worker listens everywhere."""
    hosts = ["localhost", "0.0.0.0", "::", "::1", "10.0.0.7"]
    expected = ["127.0.0.1", "127.0.0.1", "::1", "::1", "10.0.0.7"]
    assert [(host, 8080) for host in expected] == [address(DatasiteSpec("a", 8080, hostname=host)) for host in hosts]


class Stage:
    """A server that answers every connection with the same bytes, or never."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._kept.append(connection)
            connection.recv(65536)
            if self._answer is not None:
                connection.sendall(self._answer)
                connection.close()

    def close(self) -> None:
        self._listening.close()


def http_answer(body: bytes, code: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {code}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


NO_KEYS = ProbeKeyFiles(lambda _name: WorkerFolder(Path("/nowhere")))


def probe_once(service: ServiceThread, port: int, timeout: float = 5.0, keys: ProbeKeyFiles = NO_KEYS) -> ProbeAnswered:
    answered = threading.Event()
    heard: list[ProbeAnswered] = []

    def hear(answer: ProbeAnswered) -> None:
        heard.append(answer)
        answered.set()

    prober = Prober(service, hear, keys)
    prober.probe(Probe("a", 2, timeout), DatasiteSpec("a", port))
    assert answered.wait(20.0)
    return heard[0]


DOCUMENT = StatusDocument("a", "localhost", 1, "cpu", "running", generation=2, pid=9)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (http_answer(DOCUMENT.to_json()), ""),
        (http_answer(b"{}", "503 Busy"), "answered HTTP 503"),
        (http_answer(b"<html>"), "the answer is not from a worker of this fleet"),
        (
            http_answer(StatusDocument("a", "h", 1, "cpu", "running", generation=1, pid=8).to_json()),
            "another process answers on the port (a, pid 8)",
        ),
        (None, "no answer within 0.2 s"),
    ],
)
def test_a_probe_believes_only_the_right_worker(service: ServiceThread, answer: bytes | None, expected: str) -> None:
    """Readiness is this generation of this worker answering 200 in time; anything else says why not."""
    stage = Stage(answer)
    told = probe_once(service, stage.port, timeout=0.2 if answer is None else 5.0)
    stage.close()
    assert (DOCUMENT if expected == "" else None, expected) == (told.status, told.reason)


def test_a_probe_shows_the_key_that_the_worker_has_kept(service: ServiceThread, tmp_path: Path) -> None:
    """Read once; and once more after a worker did not accept it, which has drawn another."""
    keys = ProbeKeyFiles(lambda _name: WorkerFolder(tmp_path))
    told = StatusDocument("a", "", 1, "", "running", generation=0)
    (tmp_path / "probe.key").write_text("first\n")
    stage = Stage(http_answer(told.to_json()))
    assert ["first", "first"] == [keys.of("a"), keys.of("a")]
    (tmp_path / "probe.key").write_text("second\n")
    assert "first" == keys.of("a")
    probe_once(service, stage.port, keys=keys)
    stage.close()
    assert "second" == keys.of("a")


@pytest.fixture
def control(tmp_path: Path, service: ServiceThread) -> Iterator[tuple[httpx.Client, Board, list[Any]]]:
    config = fleet(DatasiteSpec("alpha", 8080))
    board, posted = Board(config), list[Any]()
    about = SupervisorFacts(1, "0", 0.0, False, 0)
    picture = lambda pinned: take(config, pinned.records, {}, about, 1.0, "now")  # noqa: E731 - what a server is given
    server = ControlServer(board, picture, posted.append, lambda: ReloadAsked(config))
    board.pin(config, {"alpha": WorkerRecord("alpha", generation=4)}, stopping=False)
    server.open(tmp_path / "control.sock", service)
    transport = httpx.HTTPTransport(uds=str(tmp_path / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://fleet", timeout=20.0) as client:
        yield client, board, posted
    board.close()
    server.close()
    assert not (tmp_path / "control.sock").exists()


def test_control_tells_and_takes(control: tuple[httpx.Client, Board, list[Any]], tmp_path: Path) -> None:
    """Status is the snapshot's stable shape; requests are posted to the engine and answered at once."""
    client, _, posted = control
    assert 0o600 == (tmp_path / "control.sock").stat().st_mode & 0o777
    assert ["alpha"] == [line["name"] for line in client.get("/v1/status").json()["datasites"]]
    answer = client.post("/v1/workers/alpha/restart")
    assert (202, 4) == (answer.status_code, answer.json()["generation"])
    assert 202 == client.post("/v1/down").status_code
    assert OperatorAsked("alpha", OperatorRequest.RESTART) == posted[0]
    assert DownAsked is type(posted[1])


def test_control_refuses_with_a_reason(control: tuple[httpx.Client, Board, list[Any]]) -> None:
    """Unknown names list the near ones; a fleet that goes down takes no more requests."""
    client, board, posted = control
    unknown = client.post("/v1/workers/alhpa/stop")
    assert (404, ["alpha"]) == (unknown.status_code, unknown.json()["near"])
    assert 404 == client.post("/v1/workers/alpha/explode").status_code
    assert 400 == client.get("/v1/status?after=x").status_code
    board.pin(fleet(DatasiteSpec("alpha", 8080)), {"alpha": WorkerRecord("alpha")}, stopping=True)
    assert 409 == client.post("/v1/workers/alpha/start").status_code
    assert [] == posted


@pytest.mark.parametrize(
    "query",
    [
        "after=x",
        "after=1.5",
        "after=" + "9" * 5000,
        "timeout=nan",
        "timeout=inf",
        "timeout=-1",
        "timeout=1e999",
        "timeout=soon",
        "after=true",
        "timeout=\ud83d",
    ],
)
def test_control_takes_numbers_only(control: tuple[httpx.Client, Board, list[Any]], query: str) -> None:
    """One that is none would wait for ever, or burn a core."""
    client, _, _ = control
    assert 400 == client.get(f"/v1/status?{query}".encode("utf-8", "replace").decode()).status_code


HOSTILE = [
    b"\xff" * 100, b"[" * 30_000, b"GET / HTTP/9.9\r\n\r\n", b"GET /v1/status HTTP/1.1\r\n", b"\0",
    b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000, b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n",
    b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"POST /v1/workers/%ff%00%0a/stop HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/workers/alpha/" + b"[" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
]  # fmt: skip


@given(chance=st.binary(max_size=300))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_bytes_on_the_control_socket_ask_for_anything(
    control: tuple[httpx.Client, Board, list[Any]], tmp_path: Path, chance: bytes
) -> None:
    """Whatever a client sends, the next one is answered, and the engine has heard of nothing."""
    client, _, posted = control
    for raw in (*HOSTILE, chance, b"POST " + chance + b" HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stranger, contextlib.suppress(OSError):
            stranger.connect(str(tmp_path / "control.sock"))
            stranger.settimeout(5.0)
            stranger.sendall(raw)
    assert ([], 200) == (posted, client.get("/v1/status").status_code)


@given(chance=st.binary(max_size=300), value=st.recursive(st.none() | st.integers() | st.text(), st.lists))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_pulse_reaches_the_engine_but_a_status(inbox: Inbox, tmp_path: Path, chance: bytes, value: Any) -> None:
    """Any bytes, and any value in any field of a status: the wait raises nothing."""
    said = {"factory_name": "a", "factory_hostname": "h", "factory_port": 1, "device": "cpu", "status": "running"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker:
        worker.connect(str(tmp_path / "pulse.sock"))
        for raw in (chance, json.dumps({**said, "datasets": value}).encode(), json.dumps(value).encode()):
            worker.send(raw)
    assert all(isinstance(one, StatusDocument) for one in inbox.wait(10.0))


@pytest.mark.parametrize("body", [b"[" * 30_000, b"\xff", b"7", b'{"pid": true}', b"x" * 2_000_000])
def test_whatever_answers_a_probe_the_engine_gets_an_answer(service: ServiceThread, body: bytes) -> None:
    """One that it can take: nothing but a status of that very process is a success."""
    stage = Stage(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    answer = probe_once(service, stage.port)
    stage.close()
    assert None is answer.status
    assert "" != answer.reason


def test_a_flood_of_pulses_leaves_the_engine_its_turn(inbox: Inbox, tmp_path: Path) -> None:
    """One wait takes only so many of them."""
    said = StatusDocument("a", "localhost", 8080, "cpu", "running", generation=2, pid=9).to_json()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as worker:
        worker.connect(str(tmp_path / "pulse.sock"))
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 200:
                worker.send(said)
                sent += 1
    assert min(sent, 64) == len(inbox.wait(10.0))


def test_control_waits_for_news(control: tuple[httpx.Client, Board, list[Any]]) -> None:
    """A long poll is answered by the next change, not by its time-out."""
    client, board, _ = control
    news: Callable[[], None] = lambda: board.pin(board.read().config, {"alpha": WorkerRecord("alpha")}, stopping=False)  # noqa: E731 - a timer wants a callable
    threading.Timer(0.1, news).start()
    answer = client.get("/v1/status?after=1&timeout=15")
    assert 200 == answer.status_code
    assert answer.elapsed.total_seconds() < 10
