"""Histories played through the real engine, with a world made of values."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from supervisor import orders
from supervisor.engine import carry_out
from supervisor.facts import OperatorAsked
from supervisor.messages import DownAsked, Signalled
from supervisor.record import ExitCause, ExitKind, OperatorRequest, WorkerState
from supervisor.spec import DashboardSpec, DatasiteSpec, RestartMode, RestartPolicy
from tests.unit.fakes import FakeMachine, fleet, play

KILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9)
ALPHA = DatasiteSpec("alpha", 8080)
BETA = DatasiteSpec("beta", 8081)


def test_a_killed_line_comes_back_and_its_neighbour_notices_nothing() -> None:
    """One SIGKILL is one launch of that line, at once."""
    world = play(fleet(ALPHA, BETA), [lambda w: w.die("beta", KILLED)])
    assert [("launch", "alpha", 1), ("launch", "beta", 1), ("launch", "beta", 2)] == world.done
    assert (WorkerState.READY, 1) == (world.pinned["beta"].state, world.pinned["beta"].restarts)
    assert (WorkerState.READY, 0) == (world.pinned["alpha"].state, world.pinned["alpha"].restarts)
    assert 0.0 == world.time


def test_an_end_is_told_first_then_cleared_away_then_followed_by_another_process() -> None:
    """Who looks on waits for no sweep; the next process meets nothing of the last. Nobody is shown down too early."""
    world = play(fleet(ALPHA), [lambda w: w.die("alpha", KILLED)])
    assert [(WorkerState.STARTING, 1)] == world.cleared
    never = DatasiteSpec("alpha", 8080, restart=RestartPolicy(mode=RestartMode.NEVER))
    stays = play(fleet(never), [lambda w: w.die("alpha", KILLED)])
    assert [(WorkerState.READY, 1)] == stays.cleared
    assert WorkerState.DOWN is stays.pinned["alpha"].state


def test_a_crash_loop_quarantines_that_line_alone() -> None:
    """Six crashes within the window end in quarantine; the neighbour runs on, and the retry comes when due."""
    crash_and_wait = [lambda w: w.die("beta", KILLED), lambda w: []] * 6
    world = play(fleet(ALPHA, BETA), crash_and_wait[:-1])
    assert (WorkerState.QUARANTINED, 5) == (world.pinned["beta"].state, world.pinned["beta"].restarts)
    assert WorkerState.READY == world.pinned["alpha"].state
    assert [("launch", "beta", n) for n in range(1, 7)] == [did for did in world.done if did[1] == "beta"]


def test_quarantine_is_retried_and_the_operator_may_come_first() -> None:
    """A start that is asked for does not wait for the retry."""
    loopy = DatasiteSpec("beta", 8081, restart=RestartPolicy(max_crashes=0))
    asked = [OperatorAsked("beta", OperatorRequest.START)]
    world = play(fleet(loopy), [lambda w: w.die("beta", KILLED), lambda w: asked])
    assert (WorkerState.READY, 2, 0.0) == (world.pinned["beta"].state, world.pinned["beta"].generation, world.time)


def test_down_stops_the_datasites_first_and_the_dashboard_last() -> None:
    """The last beat of each datasite still finds the embedded dashboard."""
    world = play(fleet(ALPHA, BETA, dashboard=DashboardSpec()), [lambda w: [DownAsked()]])
    stops = [did for did in world.done if did[0] == "terminate"]
    assert [("terminate", "alpha"), ("terminate", "beta"), ("terminate", "dashboard")] == stops
    assert {} == world.alive


def test_a_line_that_ignores_sigterm_is_killed_after_the_grace_period() -> None:
    """The fleet goes down in bounded time."""

    def down_with_stubborn_beta(world: FakeMachine) -> list[Any]:
        world.stubborn.add("beta")
        return [DownAsked()]

    world = play(fleet(ALPHA, BETA, shutdown_grace=7.0), [down_with_stubborn_beta, lambda w: []])
    assert ("kill", "beta") in world.done
    assert (7.0, {}) == (world.time, world.alive)


def test_a_hung_line_is_replaced() -> None:
    """Six silent probes in a row, ten seconds apart, and the process is killed and started anew."""

    def hang(world: FakeMachine) -> list[Any]:
        world.hung.add("alpha")
        return []

    world = play(fleet(ALPHA), [hang] + [lambda w: []] * 5)
    assert [("launch", "alpha", 1), ("kill", "alpha"), ("launch", "alpha", 2)] == world.done
    assert 60.0 == world.time


@pytest.mark.parametrize(
    ("order", "did"),
    [
        (orders.Launch("alpha", 2), ("launch", ALPHA, 2)),
        (orders.Terminate("alpha", 2, 7), ("terminate", 7)),
        (orders.Kill("alpha", 2, 7), ("kill", 7)),
        (orders.Probe("alpha", 2, 1.0), ("probe", orders.Probe("alpha", 2, 1.0), ALPHA)),
        (orders.Configure("alpha", 2, 7), ("configure", orders.Configure("alpha", 2, 7), ALPHA)),
        (orders.AbandonLaunch("alpha", 2), ("abandon_launches",)),
    ],
)
def test_each_order_is_one_deed(order: orders.Order, did: tuple[Any, ...]) -> None:
    """What is no order is an error."""
    hands = Mock()
    carry_out(order, ALPHA, hands)
    ((name, arguments, _),) = hands.mock_calls
    assert did == (name, *arguments)
    with pytest.raises(AssertionError):
        carry_out(ALPHA, ALPHA, hands)  # type: ignore[arg-type]


def test_a_second_signal_kills_what_does_not_go() -> None:
    """The first one asks; other signals mean nothing here."""

    def stubborn(world: FakeMachine) -> list[Any]:
        world.stubborn.add("alpha")
        return [Signalled("SIGHUP"), Signalled("SIGTERM")]

    world = play(fleet(ALPHA), [stubborn, lambda w: [Signalled("SIGINT")]])
    assert [("launch", "alpha", 1), ("terminate", "alpha"), ("kill", "alpha")] == world.done
    assert (0.0, {}) == (world.time, world.alive)
