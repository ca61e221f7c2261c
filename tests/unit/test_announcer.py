"""The service manager is told what it has to know, over a real datagram socket, and nothing twice."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.effects.announcer import Announcer
from supervisor.effects.sdnotify import Notifier
from supervisor.record import Wanted, WorkerRecord, WorkerState

Hear = Callable[[], list[str]]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listening:
        listening.bind(str(tmp_path / "notify"))
        yield listening


@pytest.fixture
def hear(manager: socket.socket) -> Hear:
    """What the manager has been told since the last look, a message each; the status behind a slash."""

    def all_of_it() -> list[str]:
        heard = []
        while True:
            try:
                heard.append(manager.recv(4096).decode().replace("\n", " / "))
            except BlockingIOError:
                return heard

    return all_of_it


@pytest.fixture
def announcer(tmp_path: Path, manager: socket.socket) -> Iterator[Announcer]:
    """Started at 100, its start is over at 160; the watchdog wants to be fed every 5 s."""
    made = Announcer(Notifier(str(tmp_path / "notify"), 5.0), 100.0, 60.0)
    yield made
    made.close()


def lines(**states: WorkerState) -> dict[str, WorkerRecord]:
    return {name: WorkerRecord(name, state=state, wanted=Wanted.UP, reason="") for name, state in states.items()}


READY, STARTING = WorkerState.READY, WorkerState.STARTING


def test_ready_is_told_when_every_wanted_line_is(announcer: Announcer, hear: Hear) -> None:
    """Before that only the status is, each change once; READY comes once."""
    announcer.look(lines(a=STARTING, b=STARTING), 101.0)
    announcer.look(lines(a=STARTING, b=STARTING), 102.0)
    announcer.look(lines(a=READY, b=STARTING), 103.0)
    assert ["STATUS=2 starting: a, b", "STATUS=1 ready, 1 starting: b"] == hear()
    announcer.look(lines(a=READY, b=READY), 104.0)
    announcer.look(lines(a=READY, b=READY), 105.0)
    assert ["READY=1 / STATUS=2 ready"] == hear()
    announcer.look(lines(a=WorkerState.BACKOFF, b=READY), 106.0)
    assert ["STATUS=1 ready, 1 backoff: a"] == hear()


def test_a_line_that_cannot_come_up_holds_up_the_boot_to_the_limit_only(announcer: Announcer, hear: Hear) -> None:
    """READY at the limit, with what is not ready; the loop is woken for it."""
    announcer.look(lines(a=READY, b=STARTING), 101.0)
    announcer.feed(158.0)
    hear()
    assert 2.0 == announcer.patience(None, 158.0)
    announcer.look(lines(a=READY, b=STARTING), 159.9)
    assert [] == hear()
    announcer.look(lines(a=READY, b=STARTING), 160.0)
    assert ["READY=1 / STATUS=1 ready, 1 starting: b"] == hear()


def test_a_line_that_was_stopped_is_not_waited_for(announcer: Announcer, hear: Hear) -> None:
    """What is wanted down is as it should be."""
    stopped = {**lines(a=READY), "b": WorkerRecord("b")}
    announcer.look(stopped, 101.0)
    assert ["READY=1 / STATUS=1 ready, 1 down"] == hear()


def test_the_watchdog_is_fed_when_due_and_not_before(announcer: Announcer, hear: Hear) -> None:
    """Once per interval, and the loop wakes for it, however long it else would sleep."""
    for now in (100.0, 101.0, 104.9, 105.0, 105.1, 109.9, 110.0):
        announcer.feed(now)
    assert 3 * ["WATCHDOG=1"] == hear()
    assert [4.0, 1.0, 0.0] == [announcer.patience(*asked) for asked in ((None, 111.0), (1.0, 111.0), (60.0, 115.5))]


def test_without_a_watchdog_the_loop_sleeps_as_long_as_it_likes(tmp_path: Path, manager: socket.socket) -> None:
    """Nobody is woken for nothing."""
    announcer = Announcer(Notifier(str(tmp_path / "notify")), 100.0, 60.0)
    announcer.feed(100.0)
    assert [None, 7.0] == [announcer.patience(None, 100.0), announcer.patience(7.0, 100.0)]
    announcer.close()


def test_a_reload_ends_with_ready_again(announcer: Announcer, hear: Hear) -> None:
    """RELOADING with the clock's reading, then READY, though a line that the reload restarted is still starting."""
    announcer.look(lines(a=READY), 101.0)
    hear()
    announcer.reloading(102.5)
    announcer.reloaded(lines(a=STARTING), 103.0)
    assert ["RELOADING=1 / MONOTONIC_USEC=102500000", "READY=1 / STATUS=1 starting: a"] == hear()
    announcer.look(lines(a=READY), 104.0)
    assert ["STATUS=1 ready"] == hear()


def test_a_reload_during_the_start_does_not_end_the_start(announcer: Announcer, hear: Hear) -> None:
    """READY is still to come, when it is true."""
    announcer.look(lines(a=STARTING), 101.0)
    announcer.reloaded(lines(a=STARTING), 102.0)
    assert ["STATUS=1 starting: a"] == hear()
    announcer.look(lines(a=READY), 103.0)
    assert ["READY=1 / STATUS=1 ready"] == hear()


def test_stopping_is_told_once(announcer: Announcer, hear: Hear) -> None:
    """However often the engine pins the records on its way down."""
    announcer.stopping()
    announcer.stopping()
    assert ["STOPPING=1 / WATCHDOG_USEC=0 / STATUS=stopping"] == hear()


def test_a_ready_that_was_lost_is_said_again(tmp_path: Path, hear: Hear) -> None:
    """The manager was not there for a moment (it was upgraded): the next look tells it."""
    announcer = Announcer(Notifier(str(tmp_path / "later")), 100.0, 60.0)
    announcer.look(lines(a=READY), 101.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "later"))
        announcer.look(lines(a=READY), 102.0)
        assert b"READY=1\nSTATUS=1 ready" == listening.recv(4096)
    announcer.close()


def test_without_a_service_manager_nothing_is_told() -> None:
    """Every call is a no-op, and nothing wakes the loop."""
    announcer = Announcer(Notifier(None), 100.0, 60.0)
    announcer.look(lines(a=STARTING), 101.0)
    announcer.feed(101.0)
    announcer.reloading(101.0)
    announcer.reloaded(lines(a=STARTING), 101.0)
    announcer.stopping()
    assert None is announcer.patience(None, 101.0)
    announcer.close()
