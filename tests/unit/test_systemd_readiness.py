"""``policy.readiness``: when a start is over, and the line that ``systemctl status`` shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy.readiness import Readiness, readiness, start_limit, summary
from supervisor.record import Wanted, WorkerRecord, WorkerState
from supervisor.spec import DashboardSpec, DatasiteSpec, ProbePolicy, ProbeTiming
from tests.unit.fakes import fleet


def records(*states: WorkerState, wanted: Wanted = Wanted.UP, reason: str = "") -> dict[str, WorkerRecord]:
    names = [f"line_{number}" for number in range(len(states))]
    made = (
        WorkerRecord(name, state=state, wanted=wanted, reason=reason) for name, state in zip(names, states, strict=True)
    )
    return {record.name: record for record in made}


def test_the_start_is_over_when_every_wanted_line_is_ready() -> None:
    """A line that nobody wants up is not waited for."""
    known = records(WorkerState.READY, WorkerState.READY) | {"idle": WorkerRecord("idle")}
    assert Readiness(True, "2 ready, 1 down", None) == readiness(known, since=100.0, now=100.1, limit=30.0)


@pytest.mark.parametrize("state", [state for state in WorkerState if state is not WorkerState.READY])
def test_a_line_that_is_not_ready_holds_it_up_until_the_limit(state: WorkerState) -> None:
    """Whatever keeps it; and the answer tells when time alone will change it."""
    known = records(WorkerState.READY, state)
    before, at = (readiness(known, since=100.0, now=now, limit=30.0) for now in (129.9, 130.0))
    assert (False, 130.0) == (before.due, before.wake_at)
    assert (True, None) == (at.due, at.wake_at)


def test_the_dashboard_is_waited_for_and_not_counted() -> None:
    """It is no line; when it is missing it is named."""
    known = records(WorkerState.READY) | {
        "dashboard": WorkerRecord("dashboard", state=WorkerState.BACKOFF, wanted=Wanted.UP)
    }
    assert Readiness(False, "1 ready: dashboard", 10.0) == readiness(known, since=0.0, now=0.0, limit=10.0)


def test_the_text_names_what_is_wrong_and_why() -> None:
    """Counts in the order of life, then the lines that are wanted and not ready, with their reasons."""
    known = records(WorkerState.QUARANTINED, WorkerState.READY, WorkerState.READY)
    known["line_0"] = replace(known["line_0"], reason="port 8081 is taken by pid 4711 (nginx)")
    assert "2 ready, 1 quarantined: line_0 (port 8081 is taken by pid 4711 (nginx))" == summary(known)


def test_many_troubles_are_summed_up_and_long_reasons_cut() -> None:
    """The text stays one line of a status."""
    known = records(*[WorkerState.BACKOFF] * 5, reason="r" * 300)
    text = summary(known)
    assert text.startswith("5 backoff: line_0 (rrr")
    assert text.endswith("…) and 2 more")
    assert len(text) < 400


def test_a_fleet_that_goes_down_has_no_troubles() -> None:
    """What was asked to stop is counted only."""
    assert "1 stopping, 1 down" == summary(
        records(WorkerState.STOPPING, WorkerState.DOWN, wanted=Wanted.DOWN, reason="x")
    )
    assert "no datasites" == summary({})


@given(st.lists(st.sampled_from(WorkerState)), st.floats(0, 1e6), st.floats(0, 1e4))
def test_waiting_never_goes_past_the_limit(states: list[WorkerState], now: float, limit: float) -> None:
    """Due, or a time to look again that is still to come and not past the limit."""
    told = readiness(records(*states), since=0.0, now=now, limit=limit)
    assert told.due is (told.wake_at is None)
    assert told.wake_at is None or now < told.wake_at <= limit


def test_the_limit_is_that_of_the_slowest_line() -> None:
    """With ten seconds for the first imports; the dashboard, which is no line, does not lengthen it."""
    probes = [ProbePolicy(startup=ProbeTiming(period=2.0, timeout=1.0, failure_threshold=count)) for count in (5, 20)]
    lines = [DatasiteSpec(f"line_{index}", 8080 + index, probes=each) for index, each in enumerate(probes)]
    assert 2.0 * 20 + 10.0 == start_limit(fleet(*lines, dashboard=DashboardSpec()))
