"""The promises of the pure policy: a total state table, the restart matrix, back-off, probes, and what asking does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleet_common.contract import ExitCode, Phase, StatusDocument
from supervisor.facts import (
    DeadlineReached,
    Fact,
    LaunchFailed,
    LaunchSent,
    Load,
    LoadSeen,
    OperatorAsked,
    ProbeAnswered,
    ProcessAdopted,
    ProcessExited,
    ProcessStarted,
    PulseReceived,
    RulesChanged,
)
from supervisor.orders import AbandonLaunch, Configure, Kill, Launch, Probe, Terminate
from supervisor.policy import health
from supervisor.policy.lifecycle import SPACE_PATIENCE, TABLE, next_due, step
from supervisor.policy.restart import backoff_delay, is_crash_loop, remember_crash, spread, wants_restart
from supervisor.record import By, Check, ExitCause, ExitKind, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import ProbePolicy, ProbeTiming, RestartMode, RestartPolicy, Rules

SIGKILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9)
START = OperatorAsked("a", OperatorRequest.START)
ENDED = ExitCause(ExitKind.CLEAN, "exit code 0", 0)
FAILED = ExitCause(ExitKind.FAILURE, "exit code 70", 70)
NEEDS_PROCESS = {WorkerState.READY, WorkerState.UNREADY}


def document(**more: Any) -> StatusDocument:
    return StatusDocument("a", "localhost", 8080, "cpu", "running", generation=3, pid=77, **more)


def record(state: WorkerState, **more: Any) -> WorkerRecord:
    process = {"pid": 77, "created": 5, "started_at": 1.0} if state in NEEDS_PROCESS else {}
    return replace(
        WorkerRecord("a", state=state, wanted=Wanted.UP, generation=3, readiness=Check(9e9), liveness=Check(9e9)),
        **{**process, **more},
    )


FACTS: dict[type, Fact] = {
    LaunchSent: LaunchSent("a", 3),
    ProcessStarted: ProcessStarted("a", 3, 77, 5),
    ProcessAdopted: ProcessAdopted("a", 3, 77, 5, 100.0),
    LaunchFailed: LaunchFailed("a", 3, "no memory"),
    ProcessExited: ProcessExited("a", 3, SIGKILLED),
    PulseReceived: PulseReceived("a", 3, document(phase=Phase.SERVING)),
    ProbeAnswered: ProbeAnswered("a", 3, document()),
    DeadlineReached: DeadlineReached("a", 3),
    OperatorAsked: OperatorAsked("a", OperatorRequest.STOP),
    RulesChanged: RulesChanged("a", Rules(grace=1.0), told=True),
    LoadSeen: LoadSeen("a", 3, Load(memory=5, memory_limit=4, memory_looks=9)),
}


ASKED = (OperatorAsked, ProcessAdopted, RulesChanged)
"""Facts that speak of the worker, not of one of its processes."""


def test_the_table_is_total() -> None:
    """Every state has an answer to every kind of fact."""
    assert {(state, kind) for state in WorkerState for kind in get_args(Fact)} == set(TABLE)


@pytest.mark.parametrize("state", list(WorkerState))
@pytest.mark.parametrize("kind", list(get_args(Fact)))
def test_every_step_leaves_a_record_that_makes_sense(state: WorkerState, kind: type) -> None:
    """Whatever happens in whatever state: no process without a state for it, no launch without a new generation."""
    made = step(record(state, deadline=50.0), FACTS[kind], 100.0)
    at_rest = made.record.state in (WorkerState.DOWN, WorkerState.BACKOFF, WorkerState.QUARANTINED)
    assert not (at_rest and made.record.pid is not None)
    launches = [order for order in made.orders if isinstance(order, Launch)]
    assert ([made.record.generation] if made.record.generation == 4 else []) == [o.generation for o in launches]


@pytest.mark.parametrize("state", list(WorkerState))
@pytest.mark.parametrize("kind", [kind for kind in get_args(Fact) if kind not in ASKED])
def test_an_older_generation_changes_nothing(state: WorkerState, kind: type) -> None:
    """A late word of a process that is gone is dropped."""
    before = record(state, generation=4)
    made = step(before, FACTS[kind], 100.0)
    assert (before, ()) == (made.record, made.orders)


@pytest.mark.parametrize(
    ("mode", "cause", "restarted"),
    [
        (RestartMode.ALWAYS, ENDED, True),
        (RestartMode.ALWAYS, FAILED, True),
        (RestartMode.ALWAYS, SIGKILLED, True),
        (RestartMode.ON_FAILURE, ENDED, False),
        (RestartMode.ON_FAILURE, FAILED, True),
        (RestartMode.ON_FAILURE, SIGKILLED, True),
        (RestartMode.NEVER, ENDED, False),
        (RestartMode.NEVER, FAILED, False),
        (RestartMode.NEVER, SIGKILLED, False),
    ],
)
@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.READY, WorkerState.UNREADY])
def test_restart_matrix(state: WorkerState, mode: RestartMode, cause: ExitCause, restarted: bool) -> None:
    """What follows an end that nobody asked for is the mode's word, whatever the worker was doing."""
    before = record(state, pid=77, rules=Rules(RestartPolicy(mode)))
    made = step(before, ProcessExited("a", 3, cause), 100.0)
    assert wants_restart(mode, cause) is restarted
    assert ((Launch("a", 4),) if restarted else ()) == made.orders
    assert (WorkerState.STARTING if restarted else WorkerState.DOWN) == made.record.state
    assert (1 if restarted else 0) == made.record.restarts


def test_the_first_crash_is_answered_at_once_and_the_next_ones_wait_longer() -> None:
    """Delays grow by two from ``backoff`` to ``backoff_max``, and jitter only ever lengthens."""
    policy = RestartPolicy(backoff=0.5, backoff_max=4.0, jitter=0.0)
    assert [0.0, 0.5, 1.0, 2.0, 4.0, 4.0] == [backoff_delay(n, policy, "a", 1) for n in range(1, 7)]
    jittered = backoff_delay(3, replace(policy, jitter=0.5), "a", 1)
    assert 1.0 * (1 + 0.5 * spread("a", 1)) == jittered
    assert 4.0 == backoff_delay(10_000, policy, "a", 1)


def test_neighbours_do_not_restart_in_step() -> None:
    """Jitter differs from line to line and from start to start, and is the same when replayed."""
    drawn = {spread(name, generation) for name in ("a", "b", "c") for generation in range(10)}
    assert 30 == len(drawn)
    assert spread("a", 1) == spread("a", 1)
    assert all(0.0 <= fraction < 1.0 for fraction in drawn)


def test_stable_running_forgets_crashes() -> None:
    """A line that ran ready for ``stable_after`` starts again from a clean slate."""
    policy = RestartPolicy(stable_after=60.0)
    assert (200.0,) == remember_crash((1.0, 2.0), 140.0, policy, 200.0)
    assert (1.0, 2.0, 200.0) == remember_crash((1.0, 2.0), 141.0, policy, 200.0)
    assert (1.0, 2.0, 200.0) == remember_crash((1.0, 2.0), None, policy, 200.0)


def test_a_crash_loop_is_more_than_max_crashes_within_the_window() -> None:
    """Old crashes do not count."""
    policy = RestartPolicy(max_crashes=2, window=10.0)
    assert not is_crash_loop((91.0, 100.0), policy, 100.0)
    assert is_crash_loop((91.0, 99.0, 100.0), policy, 100.0)
    assert not is_crash_loop((89.0, 99.0, 100.0), policy, 100.0)


def test_a_crash_loop_is_quarantined_with_its_reason_and_tried_again_slowly() -> None:
    """Quarantine names the last cause; nothing is launched until the retry is due."""
    before = record(WorkerState.READY, crashes=(97.0, 98.0), rules=Rules(RestartPolicy(max_crashes=2)))
    made = step(before, FACTS[ProcessExited], 100.0)
    assert (WorkerState.QUARANTINED, ()) == (made.record.state, made.orders)
    assert "crash loop: more than 2 crashes; last crash: SIGKILL" == made.record.reason
    assert 700.0 == next_due(made.record)
    assert (Launch("a", 4),) == step(made.record, FACTS[DeadlineReached], 700.0).orders


def test_quarantine_without_retry_waits_for_the_operator() -> None:
    """``quarantine_retry: 0`` means only when asked."""
    rules = Rules(RestartPolicy(max_crashes=0, quarantine_retry=0.0))
    made = step(record(WorkerState.READY, rules=rules), FACTS[ProcessExited], 100.0)
    assert None is next_due(made.record)
    asked = step(made.record, START, 101.0)
    assert (Launch("a", 4),) == asked.orders
    assert () == asked.record.crashes


def test_a_configuration_failure_is_named_and_not_retried_blindly() -> None:
    """The worker's own last word is the reason, and one such end is enough."""
    said = document(phase=Phase.FAILED, failure="port 8080 is taken by pid 9 (nginx)")
    cause = ExitCause(ExitKind.FAILURE, "exit code 78", ExitCode.CONFIGURATION)
    made = step(record(WorkerState.STARTING, pid=77, status=said), ProcessExited("a", 3, cause), 100.0)
    assert (WorkerState.QUARANTINED, ()) == (made.record.state, made.orders)
    assert "port 8080 is taken by pid 9 (nginx)" == made.record.reason
    assert ExitKind.CONFIGURATION == (made.record.last_exit or SIGKILLED).kind


def full(before: WorkerRecord, now: float) -> WorkerRecord:
    """After a try that ended because a disk is full."""
    said = document(phase=Phase.FAILED, failure="no space left in /srv/fleet (0 of 2 MB free)")
    cause = ExitCause(ExitKind.FAILURE, "exit code 74", ExitCode.NO_SPACE)
    trying = replace(before, state=WorkerState.STARTING, pid=77, status=said)
    return step(trying, ProcessExited("a", trying.generation, cause), now).record


def test_a_full_disk_is_no_crash_and_is_waited_for() -> None:
    """However long it lasts: the reason at the first try, the same wait before each, and no restart is counted."""
    now, at = 100.0, full(record(WorkerState.STARTING), 100.0)
    for _ in range(50):
        assert (WorkerState.QUARANTINED, "no space left in /srv/fleet (0 of 2 MB free)") == (at.state, at.reason)
        assert (now + SPACE_PATIENCE, ()) == (next_due(at), at.crashes)
        now += SPACE_PATIENCE
        tried = step(at, DeadlineReached("a", at.generation), now)
        assert (WorkerState.STARTING, 0, True) == (tried.record.state, tried.record.restarts, bool(tried.orders))
        at = full(tried.record, now)
    wordless = ExitCause(ExitKind.FAILURE, "exit code 74", ExitCode.NO_SPACE)
    silent = step(record(WorkerState.STARTING, status=None), ProcessExited("a", 3, wordless), 100.0).record
    assert "no space left; see its log" == silent.reason


def test_a_start_has_a_deadline() -> None:
    """A process that does not become ready in time is killed, which counts as a crash."""
    started = step(record(WorkerState.DOWN), START, 100.0).record
    assert None is started.deadline  # it may have to wait for its turn
    sent = step(started, LaunchSent("a", 4), 100.0).record
    born = step(sent, ProcessStarted("a", 4, 88, 6), 100.1).record
    late = step(born, DeadlineReached("a", 4), 100.0 + born.rules.probes.start_timeout)
    assert (Kill("a", 4, 88),) == late.orders
    gone = step(late.record, ProcessExited("a", 4, SIGKILLED), 221.0)
    assert (Launch("a", 5),) == gone.orders
    assert {"hung": 1} == gone.record.restarts_by_cause
    assert "was not ready within 120 s of its start" == str(gone.record.last_exit)


def test_up_time_begins_with_the_process() -> None:
    """Not with its launch, which may wait for a forkserver that still imports PySyft; after a restart it begins anew."""
    sent = step(step(record(WorkerState.DOWN), START, 100.0).record, LaunchSent("a", 4), 100.0).record
    assert (100.0, None) == (sent.started_at, sent.born_at)
    born = step(sent, ProcessStarted("a", 4, 88, 6), 107.0).record
    assert (100.0, 107.0) == (born.started_at, born.born_at)
    gone = step(born, ProcessExited("a", 4, SIGKILLED), 110.0).record
    assert (None, None) == (gone.started_at, gone.born_at)


def test_ready_is_an_answer_not_a_claim() -> None:
    """A pulse that says it serves is followed by a probe, and only its answer makes the line ready."""
    heard = step(record(WorkerState.STARTING, pid=77), FACTS[PulseReceived], 100.0)
    assert (WorkerState.STARTING, (Probe("a", 3, 5.0),)) == (heard.record.state, heard.orders)
    assert WorkerState.READY == step(heard.record, FACTS[ProbeAnswered], 100.1).record.state
    refused = step(heard.record, ProbeAnswered("a", 3, None, "refused"), 100.1)
    assert (WorkerState.STARTING, 101.1) == (refused.record.state, next_due(refused.record))


def test_the_first_failed_probe_shows_since_when_it_does_not_answer() -> None:
    """Long before it counts as unready; the next answer, or another process, ends it."""
    healthy = record(WorkerState.READY)
    silent = step(healthy, ProbeAnswered("a", 3, None, "no answer within 5 s"), 100.0).record
    assert (WorkerState.READY, 100.0, "no answer within 5 s") == (silent.state, silent.silent_since, silent.silence)
    still = step(silent, ProbeAnswered("a", 3, None, "refused"), 110.0).record
    assert (100.0, "refused") == (still.silent_since, still.silence)
    back = step(still, FACTS[ProbeAnswered], 120.0).record
    assert (None, "") == (back.silent_since, back.silence)
    gone = step(still, ProcessExited("a", 3, SIGKILLED), 120.0).record
    assert (None, "") == (gone.silent_since, gone.silence)


def test_consecutive_failures_make_unready_then_replace_the_process() -> None:
    """Readiness shows after its threshold, one good answer mends it; liveness kills after its own."""
    now, current = 100.0, record(WorkerState.READY, readiness=Check(), liveness=Check())
    states = []
    for _ in range(6):
        current = step(current, ProbeAnswered("a", 3, None, "no answer within 5 s"), now).record
        states.append(current.state)
        now += 10.0
    assert [WorkerState.READY] * 2 + [WorkerState.UNREADY] * 3 + [WorkerState.STOPPING] == states
    assert "did not answer 6 probes in a row: no answer within 5 s" == current.killed_for
    unready = record(WorkerState.UNREADY, readiness=Check(0.0, 4), liveness=Check(0.0, 4))
    mended = step(unready, FACTS[ProbeAnswered], 100.0).record
    assert (WorkerState.READY, 0, 0) == (mended.state, mended.readiness.failures, mended.liveness.failures)


def test_stop_is_terminate_then_kill_after_the_grace_period() -> None:
    """SIGTERM first; SIGKILL when the grace is over, and again while it does not go."""
    asked = step(record(WorkerState.READY), FACTS[OperatorAsked], 100.0)
    assert (WorkerState.STOPPING, (Terminate("a", 3, 77),)) == (asked.record.state, asked.orders)
    assert 110.0 == next_due(asked.record)
    late = step(asked.record, DeadlineReached("a", 3), 110.0)
    assert ((Kill("a", 3, 77),), 115.0) == (late.orders, next_due(late.record))
    gone = step(late.record, FACTS[ProcessExited], 110.1).record
    assert (WorkerState.DOWN, Wanted.DOWN, 0, None) == (gone.state, gone.wanted, gone.restarts, next_due(gone))


def test_restart_is_stop_then_start_and_counts_as_no_crash() -> None:
    """The operator's restart is not a restart by itself."""
    asked = step(record(WorkerState.READY), OperatorAsked("a", OperatorRequest.RESTART), 100.0)
    gone = step(asked.record, ProcessExited("a", 3, ENDED), 101.0)
    assert ((Launch("a", 4),), 0, ()) == (gone.orders, gone.record.restarts, gone.record.crashes)


def test_the_last_word_of_the_operator_holds() -> None:
    """Restart, then stop while stopping: it stays down. Stop, then start while stopping: it comes back."""
    stopping = step(record(WorkerState.READY), OperatorAsked("a", OperatorRequest.RESTART), 100.0).record
    stopped = step(stopping, OperatorAsked("a", OperatorRequest.STOP), 100.1).record
    assert WorkerState.DOWN == step(stopped, ProcessExited("a", 3, ENDED), 101.0).record.state
    back = step(stopped, START, 100.2).record
    assert (Launch("a", 4),) == step(back, ProcessExited("a", 3, ENDED), 101.0).orders


def test_a_stop_during_the_launch_meets_the_newborn() -> None:
    """There was no pid to signal yet; the SIGTERM waits for it."""
    stopping = step(record(WorkerState.STARTING), FACTS[OperatorAsked], 100.0)
    assert () == stopping.orders
    assert (Terminate("a", 3, 77),) == step(stopping.record, FACTS[ProcessStarted], 100.1).orders


def test_a_start_that_took_too_long_is_killed_as_soon_as_there_is_a_process() -> None:
    """Its deadline passed while it was being launched; a SIGTERM is for one that was asked to stop."""
    launched = record(WorkerState.STARTING, started_at=1.0, deadline=100.0)
    late = step(launched, DeadlineReached("a", 3), 100.0)
    assert (WorkerState.STOPPING, ()) == (late.record.state, late.orders)
    assert (Kill("a", 3, 77),) == step(late.record, FACTS[ProcessStarted], 100.1).orders


@pytest.mark.parametrize("state", [WorkerState.STOPPING, WorkerState.BACKOFF, WorkerState.QUARANTINED])
@pytest.mark.parametrize("deadline", [None, 100.1])
def test_a_deadline_that_was_moved_changes_nothing(state: WorkerState, deadline: float | None) -> None:
    """The engine may wake for one that holds no more: what counts is the record's own."""
    before = record(state, pid=77, deadline=deadline)
    assert (before, ()) == ((after := step(before, DeadlineReached("a", 3), 100.0)).record, after.orders)


@pytest.mark.parametrize("state", [WorkerState.STARTING, WorkerState.READY, WorkerState.UNREADY])
def test_a_worker_that_nobody_wants_stays_down_when_it_ends(state: WorkerState) -> None:
    """However it ended, and whatever the restart mode."""
    ended = step(record(state, wanted=Wanted.DOWN), FACTS[ProcessExited], 100.0)
    assert (WorkerState.DOWN, ()) == (ended.record.state, ended.orders)


def test_a_worker_whose_process_is_unknown_is_told_nothing() -> None:
    """There is nobody to signal."""
    assert () == step(record(WorkerState.READY, pid=None), RulesChanged("a", LIVE, told=True), 100.0).orders


def test_adoption_is_no_restart() -> None:
    """An adopted line is ready when it answers, with no restart and its own up-time."""
    adopted = step(WorkerRecord("a"), FACTS[ProcessAdopted], 100.0)
    assert (Probe("a", 3, 5.0),) == adopted.orders
    ready = step(adopted.record, FACTS[ProbeAnswered], 100.1).record
    assert (WorkerState.READY, 0, 0.0, 3) == (ready.state, ready.restarts, ready.born_at, ready.generation)


def test_a_launch_that_waits_for_its_turn_has_no_deadline() -> None:
    """Its time begins to count when it is sent; one of an earlier start does not count for this one."""
    held = step(record(WorkerState.DOWN), START, 100.0).record
    assert (None, None, None) == (held.started_at, held.deadline, next_due(held))
    probes = replace(ProbePolicy(), startup=ProbeTiming(2.0, 1.0, 30))
    sent = step(replace(held, rules=Rules(probes=probes)), LaunchSent("a", 4), 500.0).record
    assert (500.0, 560.0, 560.0) == (sent.started_at, sent.deadline, next_due(sent))
    assert sent == step(sent, LaunchSent("a", 3), 501.0).record


def test_startup_gates_the_other_probes() -> None:
    """Until the first answer only the start-up probe asks, in its own period; failures count for nothing else."""
    probes = ProbePolicy(ProbeTiming(2.0, 1.5, 30), ProbeTiming(0.1, 0.2, 1), ProbeTiming(0.1, 0.3, 1))
    born = step(record(WorkerState.STARTING, rules=Rules(probes=probes), deadline=160.0), FACTS[ProcessStarted], 100.0)
    assert 102.0 == next_due(born.record)
    assert () == step(born.record, DeadlineReached("a", 3), 101.0).orders
    asked = step(born.record, DeadlineReached("a", 3), 102.0)
    assert (Probe("a", 3, 1.5),) == asked.orders
    failed = step(asked.record, ProbeAnswered("a", 3, None, "refused"), 102.5).record
    assert (WorkerState.STARTING, 104.5, 0, 0) == (
        failed.state,
        next_due(failed),
        failed.readiness.failures,
        failed.liveness.failures,
    )
    ready = step(replace(failed, probe_pending=True), FACTS[ProbeAnswered], 103.0).record
    assert (WorkerState.READY, 103.1) == (ready.state, next_due(ready))


def test_one_probe_at_a_time() -> None:
    """While an answer is out nothing more is asked, however late it comes."""
    waiting = record(WorkerState.READY, readiness=Check(), liveness=Check(), probe_pending=True)
    assert (None, ()) == (next_due(waiting), step(waiting, DeadlineReached("a", 3), 100.0).orders)


LIVE = Rules(
    RestartPolicy(max_crashes=1),
    ProbePolicy(ProbeTiming(0.5, 1.0, 9), ProbeTiming(2.0, 1.0, 1), ProbeTiming(3.0, 1.0, 1)),
    1.0,
)


@pytest.mark.parametrize("state", list(WorkerState))
@pytest.mark.parametrize("told", [True, False])
def test_new_rules_are_taken_in_every_state_and_told_only_to_what_runs(state: WorkerState, told: bool) -> None:
    """The state stays, and what is due by its deadline; Configure goes to a running worker that has to know."""
    process = {"pid": 77} if state in (WorkerState.STARTING, WorkerState.STOPPING) else {}
    made = step(record(state, deadline=150.0, **process), RulesChanged("a", LIVE, told), 100.0)
    assert ((Configure("a", 3, 77),) if told and state in NEEDS_PROCESS else ()) == made.orders
    assert (state, LIVE, 150.0) == (made.record.state, made.record.rules, made.record.deadline)


@pytest.mark.parametrize(
    ("state", "due"), [(WorkerState.READY, 102.0), (WorkerState.UNREADY, 102.0), (WorkerState.STARTING, 100.5)]
)
def test_shorter_periods_count_from_now_on(state: WorkerState, due: float) -> None:
    """A probe due in an hour by the old rules is due within one new period; the start-up probe's while it starts."""
    before = record(state, pid=77, readiness=Check(3700.0), liveness=Check(3700.0))
    assert due == next_due(step(before, RulesChanged("a", LIVE), 100.0).record)


def test_longer_periods_put_nothing_off() -> None:
    """What is due soon by the old rules stays due."""
    before = record(WorkerState.READY, readiness=Check(100.2), liveness=Check(100.2))
    assert 100.2 == next_due(step(before, RulesChanged("a", LIVE), 100.0).record)


@pytest.mark.parametrize("pid", [None, 77])
def test_settings_that_change_during_a_start_are_told_when_it_is_ready(pid: int | None) -> None:
    """It was launched with the old ones, and cannot listen before it serves; it hears of the new ones once."""
    sent = record(WorkerState.STARTING, started_at=99.0, pid=pid)
    changed = step(sent, RulesChanged("a", LIVE, told=True), 100.0)
    assert () == changed.orders
    born = step(changed.record, FACTS[ProcessStarted], 100.1)
    assert () == born.orders
    ready = step(born.record, FACTS[ProbeAnswered], 101.0)
    assert (WorkerState.READY, (Configure("a", 3, 77),)) == (ready.record.state, ready.orders)
    assert () == step(ready.record, FACTS[ProbeAnswered], 102.0).orders


def test_settings_that_change_before_a_launch_are_launched_with() -> None:
    """Neither one that waits for its turn nor the successor of one that died is told anything."""
    held = step(record(WorkerState.STARTING), RulesChanged("a", LIVE, told=True), 100.0).record
    sent = step(held, LaunchSent("a", 3), 100.0).record
    assert () == step(step(sent, FACTS[ProcessStarted], 100.1).record, FACTS[ProbeAnswered], 101.0).orders
    due = record(WorkerState.STARTING, started_at=99.0, pid=77, settings_due=True)
    assert False is step(due, FACTS[ProcessExited], 100.0).record.settings_due


@pytest.mark.parametrize(
    ("request_", "by", "why", "sentence"),
    [
        (OperatorRequest.STOP, By.OPERATOR, "", "stopped by the operator"),
        (OperatorRequest.START, By.FLEET, "", "started with the fleet"),
        (OperatorRequest.RESTART, By.RELOAD, "port changed", "restarted by a reload: port changed"),
        (OperatorRequest.RESTART, By.ADOPTION, "its spec changed", "restarted after adoption: its spec changed"),
    ],
)
@pytest.mark.parametrize("state", [WorkerState.DOWN, WorkerState.BACKOFF, WorkerState.QUARANTINED])
def test_who_asked_and_why_is_the_reason(
    state: WorkerState, request_: OperatorRequest, by: By, why: str, sentence: str
) -> None:
    """Whoever asks, an operator reads who it was."""
    made = step(record(state), OperatorAsked("a", request_, by, why), 100.0).record
    assert (by, sentence, sentence) == (made.asked_by, made.asked, made.reason)


def test_a_crash_is_nobodys_wish() -> None:
    """What was asked before no longer explains anything."""
    asked = record(WorkerState.READY, asked_by=By.OPERATOR, asked="started by the operator")
    crashed = step(asked, FACTS[ProcessExited], 100.0).record
    assert (None, "", "after SIGKILL") == (crashed.asked_by, crashed.asked, crashed.reason)


def test_the_reason_of_a_stop_is_kept_when_it_is_down() -> None:
    """`fleet status` says who stopped it, long after."""
    asked = OperatorAsked("a", OperatorRequest.STOP, By.RELOAD, "no longer in fleet.yaml")
    stopping = step(record(WorkerState.READY), asked, 100.0).record
    down = step(stopping, ProcessExited("a", 3, ENDED), 101.0).record
    sentence = "stopped by a reload: no longer in fleet.yaml"
    assert (WorkerState.DOWN, By.RELOAD, sentence, sentence) == (down.state, down.asked_by, down.asked, down.reason)


def test_an_adopted_line_that_hangs_is_replaced_as_soon_as_any_other() -> None:
    """A process that had long started is given what liveness gives; one that was just starting, the rest of its start."""
    old = step(WorkerRecord("a"), ProcessAdopted("a", 3, 77, 5, 1000.0), 100.0).record
    young = step(WorkerRecord("a"), ProcessAdopted("a", 3, 77, 5, 10.0), 100.0).record
    assert (160.0, 210.0) == (old.deadline, young.deadline)
    late = step(old, DeadlineReached("a", 3), 160.0)
    assert ((Kill("a", 3, 77),), "has not answered since it was adopted") == (late.orders, late.record.killed_for)


def test_a_launch_that_never_comes_back_is_abandoned_after_a_while() -> None:
    """Its start's deadline only marks it; what makes processes is replaced when it has been silent for a minute."""
    started = step(record(WorkerState.DOWN), START, 100.0).record
    sent = step(started, LaunchSent("a", 4), 100.0).record
    late = step(replace(sent, deadline=105.0), DeadlineReached("a", 4), 105.0)
    assert (WorkerState.STOPPING, ()) == (late.record.state, late.orders)
    assert () == step(replace(late.record, deadline=159.0), DeadlineReached("a", 4), 159.0).orders
    waited = step(replace(late.record, deadline=220.0), DeadlineReached("a", 4), 220.0)
    assert (AbandonLaunch("a", 4),) == waited.orders
    assert (Launch("a", 5),) == step(waited.record, LaunchFailed("a", 4, "EOFError"), 221.0).orders


# Probes in company


@given(st.floats(0.0, 1e9), st.floats(0.01, 3600.0))
@example(3.0, 0.01)  # rounding
def test_the_next_probe_is_a_period_later_or_a_little_less(now: float, period: float) -> None:
    """Never later, never more than a quarter early: what is due together is asked together."""
    due = health.next_time(now, period)
    assert due <= now + period
    assert due > now + 0.74 * period - 1e-6 * now


def test_lines_probed_at_about_the_same_time_are_due_at_the_same_moment() -> None:
    """Answers come some milliseconds apart; the next probes do not."""
    assert {110.0} == {health.next_time(now, 10.0) for now in (100.001, 100.4, 102.3)}
    assert [110.0, 112.5] == [health.next_time(now, 10.0) for now in (100.0, 102.5)]


def test_an_every_day_fact_is_a_healthy_workers() -> None:
    """Probes and pulses of a ready worker; an exit, or anything of one that is not ready, is kept at once."""
    ready, starting = record(WorkerState.READY, pid=77), record(WorkerState.STARTING, pid=77)
    assert True is health.is_routine(DeadlineReached("a", 3), ready)
    assert False is health.is_routine(DeadlineReached("a", 3), starting)
    assert False is health.is_routine(FACTS[ProcessExited], ready)


@pytest.mark.parametrize(("pid", "theirs"), [(77, 78), (None, 78)])
def test_a_twin_on_the_port_answers_for_nobody(pid: int | None, theirs: int) -> None:
    """Another supervisor's datasite may have the name and the generation; it is not ours that is ready."""
    answer = ProbeAnswered("a", 3, replace(document(), pid=theirs))
    asked = step(replace(record(WorkerState.STARTING), pid=pid), answer, 100.0).record
    assert (WorkerState.STARTING, None) == (asked.state, asked.ready_since)
    shown = record(WorkerState.READY, pid=77, readiness=Check(0.0, 2), liveness=Check(0.0, 2))
    unready = step(shown, answer, 100.0).record
    assert (WorkerState.UNREADY, f"readiness probe failed: another process answers on the port (pid {theirs})") == (
        unready.state,
        unready.reason,
    )
