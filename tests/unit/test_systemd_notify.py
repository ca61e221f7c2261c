"""``effects.sdnotify`` against real datagram sockets: what systemd hears, and that nothing can stop the caller."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.effects.sdnotify import LONGEST_STATUS, Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A service manager's socket, and $NOTIFY_SOCKET as it would be set for it."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@fleet-test-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        yield listening, address


def heard(listening: socket.socket) -> list[dict[str, str]]:
    """The assignments of every datagram so far."""
    found: list[dict[str, str]] = []
    while True:
        try:
            text = listening.recv(8192).decode()
        except BlockingIOError:
            return found
        found.append(dict(line.split("=", 1) for line in text.split("\n")))


def test_every_word_arrives_as_sd_notify_has_it(manager: tuple[socket.socket, str]) -> None:
    """READY, STATUS, WATCHDOG, RELOADING and STOPPING, to a path and to an abstract name."""
    listening, address = manager
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": address})
    told = [
        notifier.status("2 starting"),
        notifier.ready("2 ready"),
        notifier.watchdog(),
        notifier.reloading(1234567),
        notifier.ready("2 ready"),
        notifier.stopping("2 stopping"),
    ]
    notifier.close()
    assert [True] * 6 == told
    assert [
        {"STATUS": "2 starting"},
        {"READY": "1", "STATUS": "2 ready"},
        {"WATCHDOG": "1"},
        {"RELOADING": "1", "MONOTONIC_USEC": "1234567"},
        {"READY": "1", "STATUS": "2 ready"},
        {"STOPPING": "1", "WATCHDOG_USEC": "0", "STATUS": "2 stopping"},
    ] == heard(listening)


def test_the_same_status_is_told_once(manager: tuple[socket.socket, str]) -> None:
    """The loop may say it at every turn; ready's own text counts too, and an old text in between is told again."""
    listening, address = manager
    notifier = Notifier(address)
    for text in ("a", "a"):
        notifier.status(text)
    notifier.ready("b")
    for text in ("b", "a"):
        notifier.status(text)
    notifier.close()
    assert [{"STATUS": "a"}, {"READY": "1", "STATUS": "b"}, {"STATUS": "a"}] == heard(listening)


def test_a_workers_words_cannot_become_assignments(manager: tuple[socket.socket, str]) -> None:
    """Line breaks and control characters of a reason stay inside the status text."""
    listening, address = manager
    notifier = Notifier(address)
    notifier.status("beta (failed:\nMAINPID=1\x1b[31m)")
    notifier.close()
    assert [{"STATUS": "beta (failed: MAINPID=1 [31m)"}] == heard(listening)


@pytest.mark.parametrize("sign", ["x", "ä", "\U0001f3ed"])
def test_a_long_status_is_cut_at_a_whole_character(manager: tuple[socket.socket, str], sign: str) -> None:
    """systemd drops what is longer than 4096 bytes; a cut text ends with an ellipsis."""
    listening, address = manager
    notifier = Notifier(address)
    notifier.status(sign * 5000)
    notifier.close()
    text = heard(listening)[0]["STATUS"]
    assert {sign, "…"} == set(text)
    assert LONGEST_STATUS - 4 <= len(text.encode()) <= LONGEST_STATUS


@pytest.mark.parametrize("address", [None, "", "@", "/", "relative", "vsock:2:1234", "/nowhere/notify"])
def test_nobody_listening_is_no_fault(address: str | None) -> None:
    """Every call does nothing and says so; there is no watchdog to feed."""
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    notifier = Notifier.from_environ(environ)
    calls = (notifier.ready("x"), notifier.status("x"), notifier.watchdog(), notifier.reloading(1), notifier.stopping())
    notifier.close()
    notifier.close()
    assert ((False,) * 5, False) == (calls, notifier.watchdog())


def test_a_full_manager_never_blocks(tmp_path: Path) -> None:
    """A manager that does not read costs a lost word, not a hung supervisor; the status is told once there is room."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(tmp_path / "notify"))
        notifier = Notifier(str(tmp_path / "notify"))
        sent = 0
        while notifier.watchdog():
            sent += 1
            assert sent < 100_000
        assert not notifier.status("2 ready")
        heard(listening)
        assert notifier.status("2 ready")
        assert [{"STATUS": "2 ready"}] == heard(listening)
        notifier.close()


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "77"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_its_time(environ: dict[str, str], interval: float | None) -> None:
    """As sd_watchdog_enabled(3) advises, and only by the process it is meant for."""
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": "/run/notify", **environ}, pid=77)
    notifier.close()
    assert interval == notifier.watchdog_interval
