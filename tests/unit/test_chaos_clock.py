"""Clocks that jump: nobody's wall clock decides, and an hour that nobody lived through is not an hour of silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from supervisor.effects import clock
from supervisor.facts import OperatorAsked, ProbeAnswered
from supervisor.orders import Kill
from supervisor.record import ExitCause, ExitKind, OperatorRequest, WorkerState
from supervisor.spec import DatasiteSpec
from tests.unit.fakes import FakeMachine, fleet, play

Script = list[Callable[[FakeMachine], list[Any]]]
KILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9)
ALPHA, BETA = DatasiteSpec("alpha", 8080), DatasiteSpec("beta", 8081)
HOUR, YEAR = 3600.0, 365 * 24 * 3600.0


def hang(world: FakeMachine) -> list[Any]:
    world.hung.add("alpha")
    return []


def quiet(world: FakeMachine) -> list[Any]:
    """Nothing happens but time."""
    return []


def suspended(world: FakeMachine) -> list[Any]:
    """The supervisor slept for an hour in which it was given no time; its monotonic clock went on."""
    world.time += HOUR
    return []


def eventful() -> Script:
    """Two crashes in a row, the second waited for; then a hang that probes find."""
    return [lambda w: w.die("beta", KILLED), lambda w: w.die("beta", KILLED), quiet, hang, *[quiet] * 12]


def wall_jumps(jump: float) -> Callable[[], float]:
    """A wall clock that is off by ``jump``, in turns forward and back: every reading contradicts the last."""
    real, turn = time.time, iter(range(10**9))
    return lambda: real() + jump * (1 if next(turn) % 2 else -1)


@pytest.mark.parametrize("jump", [-10 * YEAR, -HOUR, HOUR, 10 * YEAR])
def test_no_jump_of_the_wall_clock_changes_a_decision(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """Set back, set ahead, by an hour or by years: the same orders at the same moments, the same events."""
    calm = play(fleet(ALPHA, BETA), eventful())
    monkeypatch.setattr(time, "time", wall_jumps(jump))
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    monkeypatch.setattr(clock, "wall", lambda: "1970-01-01T00:00:00+00:00")
    stormy = play(fleet(ALPHA, BETA), eventful())
    assert (calm.done, calm.noted, calm.events) == (stormy.done, stormy.noted, stormy.events)
    assert {("kill", "alpha"), ("launch", "beta", 3)} <= set(calm.done)


def test_the_clock_that_decides_is_the_monotonic_one() -> None:
    """The real effects read no other for ``now``."""
    before = time.monotonic()
    assert before <= clock.monotonic() <= time.monotonic()


def test_a_missed_hour_is_no_hour_of_silence() -> None:
    """Healthy lines are asked once each when the supervisor is awake again, and nothing is killed or started."""
    world = play(fleet(ALPHA, BETA), [suspended, quiet, quiet])
    assert [("launch", "alpha", 1), ("launch", "beta", 1)] == world.done
    assert [(WorkerState.READY, 0)] * 2 == [(line.state, line.restarts) for line in world.pinned.values()]
    answered = [now for fact, _, now in world.noted if isinstance(fact, ProbeAnswered) and fact.name == "alpha"]
    assert [HOUR + 10, HOUR + 20, HOUR + 30] == [now for now in answered if now >= HOUR]


def test_a_probe_that_was_under_way_counts_once() -> None:
    """It failed, as the hour passed while it waited; the line is asked again, and lives."""

    def answers_again(world: FakeMachine) -> list[Any]:
        world.hung.discard("alpha")
        return []

    def asleep_with_a_probe_out(world: FakeMachine) -> list[Any]:
        world.hung.add("alpha")
        return suspended(world)

    world = play(fleet(ALPHA), [asleep_with_a_probe_out, answers_again, quiet, quiet])
    assert [("launch", "alpha", 1)] == world.done
    failed = [made.record.liveness.failures for fact, made, _ in world.noted if isinstance(fact, ProbeAnswered)]
    assert [0, 1, 0, 0, 0] == failed
    assert WorkerState.READY == world.pinned["alpha"].state


def test_a_hang_is_found_after_a_missed_hour_too() -> None:
    """It takes as many silent probes as ever, no fewer."""
    world = play(fleet(ALPHA), [suspended, hang, *[quiet] * 6])
    killed_at = next(now for _, made, now in world.noted if any(isinstance(order, Kill) for order in made.orders))
    assert [("launch", "alpha", 1), ("kill", "alpha"), ("launch", "alpha", 2)] == world.done
    assert killed_at >= HOUR + 5 * 10.0


def test_what_waited_for_its_back_off_starts_once_after_a_missed_hour() -> None:
    """One start, not one for each that could have been."""
    world = play(fleet(BETA), [lambda w: w.die("beta", KILLED), lambda w: w.die("beta", KILLED), suspended, quiet])
    assert [("launch", "beta", n) for n in (1, 2, 3)] == world.done
    assert (WorkerState.READY, 2) == (world.pinned["beta"].state, world.pinned["beta"].restarts)


def test_what_was_stopped_stays_stopped_over_a_missed_hour() -> None:
    """Time alone starts nothing."""
    stop = [OperatorAsked("alpha", OperatorRequest.STOP)]
    world = play(fleet(ALPHA, BETA), [lambda w: stop, suspended, quiet])
    assert WorkerState.DOWN == world.pinned["alpha"].state
    assert [("launch", "alpha", 1)] == [did for did in world.done if did[:2] == ("launch", "alpha")]
