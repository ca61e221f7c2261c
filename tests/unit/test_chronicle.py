"""What is told of a step: the right event for each change, with its cause, once, and nothing when nothing happened."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fleet_common.contract import ExitCode, Phase, StatusDocument
from supervisor.facts import (
    DeadlineReached,
    Fact,
    LaunchFailed,
    LaunchSent,
    OperatorAsked,
    ProbeAnswered,
    ProcessAdopted,
    ProcessExited,
    ProcessStarted,
    PulseReceived,
    RulesChanged,
)
from supervisor.history import Event, EventKind
from supervisor.policy.chronicle import tell
from supervisor.policy.lifecycle import step
from supervisor.record import By, Check, ExitCause, ExitKind, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import RestartMode, RestartPolicy, Rules

KILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL")
ENDED = ExitCause(ExitKind.CLEAN, "exit code 0", 0)
FAILED = ExitCause(ExitKind.FAILURE, "exit code 70", 70)
NOW = 100.0
START, STOP, RESTART = OperatorRequest.START, OperatorRequest.STOP, OperatorRequest.RESTART


def said(generation: int = 3, **more: Any) -> StatusDocument:
    more = {"phase": Phase.SERVING, **more}
    return StatusDocument("a", "localhost", 8080, "cpu", "running", generation=generation, pid=77, **more)


def record(state: WorkerState = WorkerState.READY, **more: Any) -> WorkerRecord:
    process = {"pid": 77, "created": 5, "started_at": 90.0, "ready_since": 91.0}
    process = process if state not in (WorkerState.DOWN, WorkerState.BACKOFF, WorkerState.QUARANTINED) else {}
    far = Check(9e9)
    whole = WorkerRecord("a", state=state, wanted=Wanted.UP, generation=3, readiness=far, liveness=far)
    return replace(whole, **{**process, **more})


def events(before: WorkerRecord, *facts: Fact, now: float = NOW) -> list[Event]:
    """What is told of ``facts``, one after the other."""
    told: list[Event] = []
    for fact in facts:
        after = step(before, fact, now).record
        told += tell(before, after, fact, now)
        before = after
    return told


def kinds(told: list[Event]) -> list[str]:
    return [event.event.value for event in told]


def test_a_crash_that_is_answered_at_once_is_an_end_and_a_start() -> None:
    """First the end of the old process, with its pid and cause; then the start of the new one, with its number."""
    exited, starting = events(record(), ProcessExited("a", 3, KILLED))
    assert (
        Event(
            "a",
            EventKind.EXITED,
            "ended: SIGKILL",
            state="starting",
            cause="signal",
            generation=3,
            pid=77,
            exit_code=-9,
            signal="SIGKILL",
            restarts=1,
            warning=True,
        )
        == exited
    )
    assert (
        Event(
            "a",
            EventKind.STARTING,
            "restarting (restart 1) after SIGKILL",
            state="starting",
            cause="signal",
            generation=4,
            restarts=1,
            warning=True,
        )
        == starting
    )


def test_a_crash_that_has_to_wait_says_for_how_long() -> None:
    """Back-off is told with its cause and the next attempt; the attempt names the cause again."""
    before = record(crashes=(99.0,), rules=Rules(RestartPolicy(backoff=2.0, jitter=0.0)), ready_since=99.5)
    exited, backoff, starting = events(before, ProcessExited("a", 3, FAILED)) + events(
        step(before, ProcessExited("a", 3, FAILED), NOW).record, DeadlineReached("a", 3), now=NOW + 2.0
    )
    assert ("failure", 70, None, True) == (exited.cause, exited.exit_code, exited.signal, exited.warning)
    assert "waiting to restart: exit code 70; next attempt in 2.0 s" == backoff.text
    assert (EventKind.BACKOFF, "failure", True) == (backoff.event, backoff.cause, backoff.warning)
    assert (EventKind.STARTING, "failure", 4, 1) == (
        starting.event,
        starting.cause,
        starting.generation,
        starting.restarts,
    )


def test_quarantine_is_told_with_its_reason() -> None:
    """A crash loop, and the time of the next attempt; without one there is none."""
    loop = record(rules=Rules(RestartPolicy(max_crashes=0)))
    told = events(loop, ProcessExited("a", 3, KILLED))
    assert ["exited", "quarantined"] == kinds(told)
    expected = "quarantined: crash loop: more than 0 crashes; last crash: SIGKILL; next attempt in 600.0 s"
    assert (expected, "signal", True) == (told[1].text, told[1].cause, told[1].warning)
    for_good = replace(loop, rules=Rules(RestartPolicy(max_crashes=0, quarantine_retry=0.0)))
    assert events(for_good, ProcessExited("a", 3, KILLED))[1].text.endswith("last crash: SIGKILL")


def test_an_end_that_the_restart_mode_leaves_alone() -> None:
    """The line is down, because of its end and the mode."""
    told = events(record(rules=Rules(RestartPolicy(RestartMode.NEVER))), ProcessExited("a", 3, ENDED))
    assert ["exited", "down"] == kinds(told)
    assert ("down: exit code 0; restart mode is never", "clean") == (told[1].text, told[1].cause)


def test_a_launch_that_came_to_nothing() -> None:
    """It is told like an end, for it counts as one."""
    exited, starting = events(record(WorkerState.STARTING, pid=None), LaunchFailed("a", 3, "no memory"))
    assert ("exited", "launch", "ended: launch failed: no memory") == (exited.event, exited.cause, exited.text)
    assert (EventKind.STARTING, "launch") == (starting.event, starting.cause)


def test_a_start_tells_how_long_it_took() -> None:
    """From the launch's turn to the first answer."""
    down = record(WorkerState.DOWN, wanted=Wanted.DOWN)
    told = events(
        down,
        OperatorAsked("a", START),
        LaunchSent("a", 4),
        ProcessStarted("a", 4, 88, 6),
        now=NOW,
    )
    assert [("starting", "starting: started by the operator", "operator", False)] == [
        (event.event, event.text, event.cause, event.warning) for event in told
    ]
    started = record(WorkerState.STARTING, started_at=NOW, ready_since=None)
    (ready,) = events(started, ProbeAnswered("a", 3, said()), now=NOW + 0.41)
    assert (EventKind.READY, "ready in 0.41 s (pid 77)", "") == (ready.event, ready.text, ready.cause)


def test_a_failed_probe_and_its_recovery() -> None:
    """Not ready is the probe's word and a warning; ready again is none."""
    failing = record(readiness=Check(0.0, failures=2))
    (unready,) = events(failing, ProbeAnswered("a", 3, None, "no answer within 5 s"))
    expected = "not ready: readiness probe failed: no answer within 5 s"
    assert ("unready", "probe", expected, True) == (unready.event, unready.cause, unready.text, unready.warning)
    (ready,) = events(record(WorkerState.UNREADY), ProbeAnswered("a", 3, said()))
    assert ("ready", "ready again", False) == (ready.event, ready.text, ready.warning)


def test_a_hung_line_is_killed_by_the_probe_and_its_end_is_hung() -> None:
    """The signal was ours; the cause that is told is that it did not answer."""
    failing = record(WorkerState.UNREADY, liveness=Check(0.0, failures=5), readiness=Check(0.0, failures=5))
    silent = ProbeAnswered("a", 3, None, "no answer within 5 s")
    killed, exited, starting = events(failing, silent, ProcessExited("a", 3, KILLED))
    assert ("stopping", "probe", True) == (killed.event, killed.cause, killed.warning)
    assert killed.text == "killed: did not answer 6 probes in a row: no answer within 5 s"
    assert ("exited", "hung", -9, True) == (exited.event, exited.cause, exited.exit_code, exited.warning)
    assert ("starting", "hung", 1) == (starting.event, starting.cause, starting.restarts)


def test_a_start_that_takes_too_long_is_killed() -> None:
    """The same, of a start."""
    late = record(WorkerState.STARTING, deadline=NOW)
    killed, exited, _ = events(late, DeadlineReached("a", 3), ProcessExited("a", 3, KILLED))
    assert "killed: was not ready within 120 s of its start" == killed.text
    assert ("hung", "ended: was not ready within 120 s of its start") == (exited.cause, exited.text)


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (By.OPERATOR, "stopped by the operator"),
        (By.FLEET, "stopped with the fleet"),
        (By.RELOAD, "stopped by a reload: no longer in fleet.yaml"),
    ],
)
def test_an_end_that_was_asked_for_names_who_asked(by: By, sentence: str) -> None:
    """No part of it is a warning, whatever the exit code."""
    asked = OperatorAsked("a", STOP, by, "no longer in fleet.yaml" if by is By.RELOAD else "")
    told = events(record(), asked, ProcessExited("a", 3, KILLED))
    assert ["stopping", "exited", "down"] == kinds(told)
    assert [by.value] * 3 == [event.cause for event in told]
    assert (f"stopping: {sentence}", f"down: {sentence}") == (told[0].text, told[2].text)
    assert not any(event.warning for event in told)


def test_a_restart_that_was_asked_for_is_no_crash() -> None:
    """Stopping, its end, its start: all with who asked and why, and no restart is counted."""
    told = events(record(), OperatorAsked("a", RESTART, By.RELOAD, "port changed"), ProcessExited("a", 3, ENDED))
    assert ["stopping", "exited", "starting"] == kinds(told)
    assert ["reload"] * 3 == [event.cause for event in told]
    assert ("starting: restarted by a reload: port changed", 0) == (told[2].text, told[2].restarts)


def test_adoption_is_told_as_such() -> None:
    """With the pid, and the answer that follows; a restart after it says why."""
    adopted = ProcessAdopted("a", 7, 77, 5, 100.0)
    told = events(WorkerRecord("a"), adopted, ProbeAnswered("a", 7, said(7)))
    assert ["adopted", "ready"] == kinds(told)
    expected = "adopted (pid 77): it was running before this supervisor started"
    assert (expected, "adoption", 7, 77, False) == (
        told[0].text,
        told[0].cause,
        told[0].generation,
        told[0].pid,
        told[0].warning,
    )
    assert "answers (pid 77)" == told[1].text
    why = OperatorAsked("a", RESTART, By.ADOPTION, "its configuration changed while no supervisor was running")
    told = events(WorkerRecord("a"), adopted, why)
    assert ("stopping", "adoption") == (told[1].event, told[1].cause)
    assert told[1].text.endswith("after adoption: its configuration changed while no supervisor was running")


def test_a_launch_that_is_taken_back_never_ended() -> None:
    """There was no process: stopping and down, and no end."""
    waiting = record(WorkerState.STARTING, pid=None, started_at=None)
    told = events(waiting, OperatorAsked("a", STOP), LaunchFailed("a", 3, "cancelled before it started"))
    assert ["stopping", "down"] == kinds(told)


def test_registration_is_told_when_it_changes() -> None:
    """Registered once; lost once, with why; a heartbeat-only central, which offers none, is no loss."""
    registered = said(registered=True, registration="registered with http://central:5000")
    lost = said(registered=False, registration="connection refused")
    told = events(record(), PulseReceived("a", 3, registered), PulseReceived("a", 3, registered))
    assert [("registered", "registered with http://central:5000")] == [(e.event, e.text) for e in told]
    told = events(record(status=registered), PulseReceived("a", 3, lost), PulseReceived("a", 3, lost))
    assert [("unregistered", "no longer registered: connection refused")] == [(e.event, e.text) for e in told]
    assert [] == events(record(), PulseReceived("a", 3, said(registered=False, registration="404")))


def test_a_new_process_registers_anew() -> None:
    """What the process before it had told of itself counts for nothing."""
    before = record(status=said(2, registered=True))
    assert ["registered"] == kinds(events(before, PulseReceived("a", 3, said(registered=True))))
    assert [] == events(before, PulseReceived("a", 3, said(registered=False, registration="404")))


def test_interrupted_jobs_are_told_once() -> None:
    """The datasite goes on saying it in every status; the event comes with the first."""
    cut_off = said(interrupted_jobs=["train_1", "train_2"])
    told = events(
        record(),
        PulseReceived("a", 3, cut_off),
        ProbeAnswered("a", 3, cut_off),
        PulseReceived("a", 3, replace(cut_off, registered=True)),
    )
    assert ["jobs_interrupted", "registered"] == kinds(told)
    expected = "the process ended and interrupted these jobs: train_1, train_2"
    assert (expected, True) == (told[0].text, told[0].warning)


def test_a_job_that_was_cut_off_is_told_by_its_name() -> None:
    """Each time there is one more; a new process counts anew."""
    one = said(jobs_cut_off=1, last_job_cut_off="train_1: out of memory")
    two = replace(one, jobs_cut_off=2, last_job_cut_off="train_2: SIGKILL")
    told = events(record(), PulseReceived("a", 3, one), ProbeAnswered("a", 3, one), PulseReceived("a", 3, two))
    assert [
        ("jobs_interrupted", "a job was interrupted: train_1: out of memory"),
        ("jobs_interrupted", "a job was interrupted: train_2: SIGKILL"),
    ] == [(one.event, one.text) for one in told]
    anew = events(record(status=said(2, jobs_cut_off=5)), PulseReceived("a", 3, one))
    assert ["jobs_interrupted"] == kinds(anew)


def test_refusals_are_told_with_how_many_there_were() -> None:
    """Those since the datasite last spoke of them; a new process counts anew."""
    once = said(failed_logins=1, last_failed_login="for a@b from 10.0.0.1")
    more = replace(once, failed_logins=4, refused_calls=2, last_refused_call="from 10.0.0.2: why")
    told = events(record(), PulseReceived("a", 3, once), PulseReceived("a", 3, more), ProbeAnswered("a", 3, more))
    assert [
        ("login_failed", "1 failed login for a@b from 10.0.0.1", True),
        ("login_failed", "3 failed logins, the last for a@b from 10.0.0.1", True),
        ("call_refused", "2 refused calls, the last from 10.0.0.2: why", True),
    ] == [(one.event, one.text, one.warning) for one in told]
    anew = events(record(status=said(2, failed_logins=7)), PulseReceived("a", 3, once))
    assert ["login_failed"] == kinds(anew)


def test_interrupted_jobs_are_told_with_the_answer_that_makes_it_ready() -> None:
    """Ready first, then what the crash cut off."""
    starting = record(WorkerState.STARTING, ready_since=None)
    told = events(starting, ProbeAnswered("a", 3, said(interrupted_jobs=["train_1"])))
    assert ["ready", "jobs_interrupted"] == kinds(told)


def a_dataset(published_at: str | None = None, problem: str = "") -> list[dict[str, Any]]:
    return [{"name": "bearings", "published_at": published_at, "problem": problem}]


def test_what_becomes_of_a_dataset_is_told_once() -> None:
    """Missing, published, updated, broken while the last version stays; nothing when it is said again."""
    documents = [
        said(datasets=a_dataset(problem="the file does not exist")),
        said(datasets=a_dataset("10:00")),
        said(datasets=a_dataset("10:00"), registered=True),
        said(datasets=a_dataset("10:05"), registered=True),
        said(datasets=a_dataset("10:05", "not a CSV file"), registered=True),
        said(datasets=a_dataset("10:05"), registered=True),
        said(registered=True),
    ]
    told = events(record(status=said()), *(PulseReceived("a", 3, one) for one in documents))
    told = [one for one in told if one.event is not EventKind.REGISTERED]
    expected = ["the file does not exist", "published", "updated", "not a CSV file"]
    assert [f"dataset bearings{':' if ' ' in one else ''} {one}" for one in expected] == [one.text for one in told]
    assert [True, False, False, True] == [one.warning for one in told]


def test_what_an_earlier_process_published_is_no_news() -> None:
    """A restart, or a supervisor that comes later, finds it published."""
    published = PulseReceived("a", 3, said(datasets=a_dataset("10:00")))
    assert [] == events(record(), published)
    assert [] == events(record(status=said(2)), published)


@pytest.mark.parametrize("state", list(WorkerState))
@pytest.mark.parametrize(
    "fact",
    [
        LaunchSent("a", 2),
        ProcessStarted("a", 2, 66, 4),
        LaunchFailed("a", 2, "no memory"),
        ProcessExited("a", 2, KILLED),
        PulseReceived("a", 2, said(2, registered=True, interrupted_jobs=["x"])),
        ProbeAnswered("a", 2, None, "refused"),
        DeadlineReached("a", 2),
    ],
    ids=lambda fact: type(fact).__name__,
)
def test_a_stale_fact_tells_nothing(state: WorkerState, fact: Fact) -> None:
    """A word about a process that is gone is no event."""
    assert [] == events(record(state), fact)


def test_what_changes_no_state_is_no_event() -> None:
    """Probes that succeed, rules that change, a start of what runs, deadlines that only probe."""
    quiet: list[Fact] = [ProbeAnswered("a", 3, said()), RulesChanged("a", Rules(grace=1.0)), OperatorAsked("a", START)]
    assert [] == events(record(status=said()), *quiet, DeadlineReached("a", 3))


def test_a_disk_that_stays_full_is_told_once() -> None:
    """The tries of a night make no events; its end does, and so does a try that somebody asked for."""
    full = ExitCause(ExitKind.FAILURE, "exit code 74", ExitCode.NO_SPACE)
    trying = record(WorkerState.STARTING, ready_since=None, status=said(failure="no space left in /srv"))
    told = events(trying, ProcessExited("a", 3, full))
    assert ["exited", "quarantined"] == kinds(told)
    assert "quarantined: no space left in /srv; next attempt in 10.0 s" == told[-1].text
    waiting = step(trying, ProcessExited("a", 3, full), NOW).record
    again = events(waiting, DeadlineReached("a", 3), ProcessExited("a", 4, full), now=NOW + 15.0)
    assert [] == again
    tried = step(waiting, DeadlineReached("a", 3), NOW + 15.0).record
    assert ["ready"] == kinds(events(tried, ProcessStarted("a", 4, 77, 6), ProbeAnswered("a", 4, said(4))))
    assert ["starting", "exited", "quarantined"] == kinds(
        events(waiting, OperatorAsked("a", START), ProcessExited("a", 4, full))
    )
    assert ["exited", "backoff"] == kinds(events(replace(tried, crashes=(90.0,)), ProcessExited("a", 4, KILLED)))
