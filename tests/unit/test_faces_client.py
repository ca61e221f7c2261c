"""The control client: every call bounded, every failure named."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from supervisor.faces.client import ControlClient, NoAnswer, NotRunning, Refused, UnknownWorker
from supervisor.faces.follow import SentRequest, Verdict, judge
from supervisor.record import OperatorRequest
from tests.unit.fake_supervisor import at_rest, listening, worker

START, STOP, RESTART = OperatorRequest.START, OperatorRequest.STOP, OperatorRequest.RESTART


def test_reads_the_whole_picture(tmp_path: Path) -> None:
    """What the supervisor pinned arrives as the same value."""
    everyone = (worker("line_a"), at_rest("line_b"))
    with listening(tmp_path, *everyone, dashboard=worker("dashboard")) as fake, ControlClient(tmp_path) as client:
        assert fake.picture == client.status()


def test_reaches_a_socket_at_any_depth(tmp_path: Path) -> None:
    """A state folder whose socket path is longer than the 107 bytes of an address works like any other."""
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    with listening(deep, worker()), ControlClient(deep) as client:
        assert "detroit" == client.status().fleet


def test_a_long_poll_ends_with_the_change(tmp_path: Path) -> None:
    """status(after=…) answers as soon as something changed, long before its timeout."""
    with listening(tmp_path, worker()) as fake, ControlClient(tmp_path) as client:
        seen = client.status().revision
        change = threading.Timer(0.05, fake.change, ("line_a",), {"restarts": 1})
        change.start()
        begin = time.monotonic()
        assert 1 == client.status(after=seen, timeout=20).datasites[0].restarts
        assert time.monotonic() - begin < 10
        change.join()


def test_a_long_poll_ends_with_its_timeout(tmp_path: Path) -> None:
    """Nothing changed: the same picture comes after the timeout, and is no error."""
    with listening(tmp_path, worker()) as fake, ControlClient(tmp_path, answer_timeout=5) as client:
        assert fake.picture == client.status(after=1, timeout=0.05)


def test_no_folder_no_socket_no_listener_are_not_running(tmp_path: Path) -> None:
    """A fleet that never ran, one that ended in order, and one that was killed are all simply not running."""
    with pytest.raises(NotRunning):
        ControlClient(tmp_path / "nowhere")
    with pytest.raises(NotRunning), ControlClient(tmp_path) as client:
        client.status()
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(tmp_path / "control.sock"))
    with pytest.raises(NotRunning), ControlClient(tmp_path) as client:
        client.status()


def test_a_supervisor_that_hangs_is_named(tmp_path: Path) -> None:
    """No call waits for ever for a supervisor that accepts and says nothing."""
    with listening(tmp_path, worker()) as fake:
        fake.hangs = True
        with ControlClient(tmp_path, answer_timeout=0.1) as client, pytest.raises(NoAnswer, match=r"within 0\.1 s"):
            client.status()


@pytest.mark.parametrize("answer", [(200, b"<html>"), (200, b'{"fleet": "x"}'), (200, b"[]"), (500, b"oh no")])
def test_a_stranger_on_the_socket_is_named(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    """Whatever answers in another language, another version say, is an error that says so."""
    with listening(tmp_path, worker()) as fake, ControlClient(tmp_path) as client:
        fake.answer = answer
        with pytest.raises(NoAnswer):
            client.status()


def test_passes_on_requests(tmp_path: Path) -> None:
    """A request arrives under its name, and its answer is the generation before it."""
    with listening(tmp_path, worker("line_a", generation=7)) as fake, ControlClient(tmp_path) as client:
        assert 7 == client.ask("line_a", RESTART)
        client.down()
        assert [("line_a", "restart")] == fake.asked
        assert fake.went_down.wait(5)


def test_unknown_names_come_with_the_near_ones(tmp_path: Path) -> None:
    """The supervisor's suggestions reach the caller."""
    with (
        listening(tmp_path, worker("line_a")),
        ControlClient(tmp_path) as client,
        pytest.raises(UnknownWorker) as caught,
    ):
        client.ask("line_b", START)
    assert ("line_b", ("line_a",)) == (caught.value.name, caught.value.near)


def test_a_refusal_keeps_its_reason(tmp_path: Path) -> None:
    """A fleet that goes down takes no requests, and says why."""
    with (
        listening(tmp_path, worker(), stopping=True),
        ControlClient(tmp_path) as client,
        pytest.raises(Refused, match="the fleet is stopping"),
    ):
        client.ask("line_a", START)


def test_proxies_of_the_environment_are_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy configured for the plant's network has nothing to do with a local socket."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with listening(tmp_path, worker()), ControlClient(tmp_path) as client:
        assert 1 == client.status().revision


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """A display that reconnects for months does not run out of descriptors."""
    with listening(tmp_path, worker()):
        with ControlClient(tmp_path) as client:
            client.status()
        before = open_descriptors()
        for _ in range(20):
            with ControlClient(tmp_path) as client:
                client.status()
        assert open_descriptors() <= before + 2  # the server's threads may still hold their ends


def asked(request: OperatorRequest, **before: Any) -> SentRequest:
    was = at_rest(**before) if before.get("state", "ready") in ("down", "backoff", "quarantined") else worker(**before)
    return SentRequest(request, was.name, was, was.generation)


@pytest.mark.parametrize(
    ("what", "now", "verdict"),
    [
        # already so
        (asked(START), worker(), Verdict.DONE),
        (asked(STOP, state="down"), at_rest(), Verdict.DONE),
        # not taken up yet
        (asked(RESTART), worker(), Verdict.WAITING),
        (asked(STOP), worker(), Verdict.WAITING),
        (asked(START, state="down"), at_rest(), Verdict.WAITING),
        (asked(START, state="quarantined"), at_rest(state="quarantined", wanted="up"), Verdict.WAITING),
        # under way
        (asked(RESTART), worker(state="stopping"), Verdict.WAITING),
        (asked(RESTART), worker(state="starting", generation=2), Verdict.WAITING),
        (asked(STOP), worker(state="stopping", wanted="down"), Verdict.WAITING),
        (asked(START, state="down"), worker(state="starting", generation=2), Verdict.WAITING),
        # came about
        (asked(RESTART), worker(generation=2), Verdict.DONE),
        (asked(START, state="backoff"), worker(generation=2), Verdict.DONE),
        (asked(STOP), at_rest(), Verdict.DONE),
        # cannot come about
        (asked(RESTART), at_rest(state="backoff", wanted="up", generation=2), Verdict.FAILED),
        (asked(START, state="quarantined"), at_rest(state="quarantined", wanted="up", generation=2), Verdict.FAILED),
        (asked(START, state="down"), at_rest(state="down", wanted="down", generation=2), Verdict.FAILED),
        (asked(START, state="starting"), at_rest(state="quarantined", wanted="up"), Verdict.FAILED),
        (asked(RESTART), at_rest(state="down", wanted="down"), Verdict.FAILED),
    ],
)
def test_what_became_of_a_request(what: SentRequest, now: object, verdict: Verdict) -> None:
    """Done, failed or under way is told from the snapshot alone, by generations, not by the order of answers."""
    assert verdict == judge(what, now)  # type: ignore[arg-type]  # a table of worker snapshots
