"""The life of one worker: ``step(record, fact, now) -> Step``, the only place where a decision is made. Pure.

``TABLE`` names, for every state and every kind of fact, the one function that answers it; a test holds that it is
total. What the operator wants is a field of the record, not a state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fleet_common.contract import ExitCode, Phase, StatusDocument
from supervisor.facts import (
    DeadlineReached,
    Fact,
    LaunchFailed,
    LaunchSent,
    LoadSeen,
    OperatorAsked,
    ProbeAnswered,
    ProcessAdopted,
    ProcessExited,
    ProcessStarted,
    PulseReceived,
    RulesChanged,
)
from supervisor.orders import AbandonLaunch, Configure, Kill, Launch, Order, Probe, Terminate
from supervisor.policy import health, limits
from supervisor.policy.restart import backoff_delay, is_crash_loop, remember_crash, wants_restart
from supervisor.record import (
    BY_WORDS,
    Check,
    ExitCause,
    ExitKind,
    OperatorRequest,
    Pressure,
    Wanted,
    WorkerRecord,
    WorkerState,
)

DOWN = WorkerState.DOWN
STARTING = WorkerState.STARTING
READY = WorkerState.READY
UNREADY = WorkerState.UNREADY
STOPPING = WorkerState.STOPPING
BACKOFF = WorkerState.BACKOFF
QUARANTINED = WorkerState.QUARANTINED

ADOPTED = "adopted"
"""The reason of an adopted worker until it answers."""
LAUNCH_PATIENCE = 60.0
"""Seconds after which the forkserver counts as hung, if a launch has made no process."""
SPACE_PATIENCE = 10.0
"""Seconds from one try to the next while a disk is full."""
KILL_AGAIN_AFTER = 5.0
"""Seconds between SIGKILLs of a process that does not end (it sleeps in the kernel, say on a dead disk)."""


@dataclass(frozen=True, slots=True)
class Step:
    record: WorkerRecord
    orders: tuple[Order, ...] = ()


Handler = Callable[[WorkerRecord, Any, float], Step]


def step(record: WorkerRecord, fact: Fact, now: float) -> Step:
    """The next record, and what to do, after ``fact``.

    A fact of an older generation is about a process that has ended, and changes nothing.
    """
    if not isinstance(fact, OperatorAsked | ProcessAdopted | RulesChanged) and fact.generation != record.generation:
        return Step(record)
    return TABLE[record.state, type(fact)](record, fact, now)


def next_due(record: WorkerRecord) -> float | None:
    """When the record next needs a ``DeadlineReached``; None: never."""
    due = [record.deadline] if record.deadline is not None else []
    if record.state in (STARTING, READY, UNREADY) and record.pid is not None and not record.probe_pending:
        due += [record.readiness.due, record.liveness.due]
    return min(due) if due else None


# --- moves that several answers share -------------------------------------------------------------------------


def _enter(record: WorkerRecord, state: WorkerState, now: float, reason: str = "", **changes: Any) -> WorkerRecord:
    changes = {"deadline": None, **changes}
    return replace(record, state=state, since=now, reason=reason, **changes)


def _launch(record: WorkerRecord, now: float, reason: str = "", **changes: Any) -> Step:
    """Its deadline is set when the launch is sent: it may have to wait for its turn."""
    generation = record.generation + 1
    fresh = _enter(
        record,
        STARTING,
        now,
        reason,
        generation=generation,
        started_at=None,
        restart_asked=False,
        **_no_process(),
        **changes,
    )
    return Step(fresh, (Launch(record.name, generation),))


def _no_process() -> dict[str, Any]:
    return {
        "pid": None,
        "created": None,
        "born_at": None,
        "ready_since": None,
        "status": None,
        "settings_due": False,
        "killed_for": "",
        "killed_kind": ExitKind.HUNG,
        "pressure": Pressure(),
        "probe_pending": False,
        "silent_since": None,
        "silence": "",
        "readiness": Check(),
        "liveness": Check(),
    }


def _rest(record: WorkerRecord, state: WorkerState, now: float, reason: str, **changes: Any) -> Step:
    """There is no process and no launch: down, waiting, or quarantined."""
    return Step(_enter(record, state, now, reason, started_at=None, restart_asked=False, **_no_process(), **changes))


def _terminate(record: WorkerRecord, now: float, reason: str, **changes: Any) -> Step:
    stopping = _enter(record, STOPPING, now, reason, deadline=now + record.rules.grace, **changes)
    if record.pid is None:  # the launch is still in progress; SIGTERM follows its ProcessStarted
        return Step(stopping)
    return Step(stopping, (Terminate(record.name, record.generation, record.pid),))


def _kill(record: WorkerRecord, now: float, why: str) -> Step:
    """Kill a process that does not work; what follows is decided when it has ended."""
    stopping = _enter(record, STOPPING, now, why, deadline=now + KILL_AGAIN_AFTER, killed_for=why)
    if record.pid is None:  # SIGKILL follows its ProcessStarted, or the launch is abandoned later
        return Step(stopping)
    return Step(stopping, (Kill(record.name, record.generation, record.pid),))


def _probe(record: WorkerRecord, timeout: float) -> Step:
    return Step(replace(record, probe_pending=True), (Probe(record.name, record.generation, timeout),))


def _crashed(record: WorkerRecord, cause: ExitCause, now: float) -> Step:
    """A process ended although nobody stopped it."""
    policy = record.rules.restart
    full = cause.kind is ExitKind.NO_SPACE
    crashes = record.crashes if full else remember_crash(record.crashes, record.ready_since, policy, now)
    record = replace(record, last_exit=cause, crashes=crashes)
    if record.wanted is Wanted.DOWN:
        return _rest(record, DOWN, now, record.asked)
    record = replace(record, asked_by=None, asked="")
    if not wants_restart(policy.mode, cause):
        return _rest(record, DOWN, now, f"{cause}; restart mode is {policy.mode}", wanted=Wanted.DOWN)
    if full:
        return _rest(record, QUARANTINED, now, cause.detail, deadline=now + SPACE_PATIENCE)
    if cause.kind is ExitKind.CONFIGURATION:
        return _quarantine(record, cause.detail, now)
    if is_crash_loop(crashes, policy, now):
        return _quarantine(record, f"crash loop: more than {policy.max_crashes} crashes; last crash: {cause}", now)
    return _back_off(record, cause, now)


def _quarantine(record: WorkerRecord, reason: str, now: float) -> Step:
    retry = record.rules.restart.quarantine_retry
    return _rest(record, QUARANTINED, now, reason, deadline=now + retry if retry > 0 else None)


def _back_off(record: WorkerRecord, cause: ExitCause, now: float) -> Step:
    delay = backoff_delay(len(record.crashes), record.rules.restart, record.name, record.generation)
    if delay == 0.0:
        return _restart_by_itself(record, now)
    return _rest(record, BACKOFF, now, str(cause), deadline=now + delay)


def _restart_by_itself(record: WorkerRecord, now: float) -> Step:
    kind = record.last_exit.kind.value if record.last_exit else ExitKind.UNKNOWN.value
    by_cause = {**record.restarts_by_cause, kind: record.restarts_by_cause.get(kind, 0) + 1}
    reason = f"after {record.last_exit}"
    return _launch(record, now, reason, restarts=record.restarts + 1, restarts_by_cause=by_cause)


# --- answers to facts -----------------------------------------------------------------------------------------


def ignore(record: WorkerRecord, fact: Fact, now: float) -> Step:
    return Step(record)


def launch_sent(record: WorkerRecord, fact: LaunchSent, now: float) -> Step:
    return Step(replace(record, started_at=now, deadline=now + record.rules.probes.start_timeout))


def note_process(record: WorkerRecord, fact: ProcessStarted, now: float) -> Step:
    due = health.scheduled(record.rules.probes.startup, now)
    return Step(replace(record, pid=fact.pid, created=fact.created, born_at=now, readiness=due, liveness=due))


def end_newborn(record: WorkerRecord, fact: ProcessStarted, now: float) -> Step:
    """The worker was stopped during its launch."""
    record = replace(record, pid=fact.pid, created=fact.created, born_at=now)
    if record.killed_for:
        return Step(record, (Kill(record.name, record.generation, fact.pid),))
    return Step(record, (Terminate(record.name, record.generation, fact.pid),))


def adopt(record: WorkerRecord, fact: ProcessAdopted, now: float) -> Step:
    """A process of an earlier supervisor is ready as soon as it answers, and this is no restart. It has the rest of its
    start time, and at least as long as liveness gives."""
    probes = record.rules.probes
    patience = max(probes.liveness.period * probes.liveness.failure_threshold, probes.start_timeout - fact.age)
    adopted = _enter(
        record,
        STARTING,
        now,
        ADOPTED,
        wanted=Wanted.UP,
        generation=fact.generation,
        pid=fact.pid,
        created=fact.created,
        started_at=now - fact.age,
        born_at=now - fact.age,
        deadline=now + patience,
        readiness=health.scheduled(probes.startup, now),
        liveness=health.scheduled(probes.startup, now),
    )
    return _probe(adopted, probes.startup.timeout)


def launch_failed(record: WorkerRecord, fact: LaunchFailed, now: float) -> Step:
    return _crashed(record, ExitCause(ExitKind.LAUNCH, f"launch failed: {fact.reason}"), now)


def launch_failed_while_stopping(record: WorkerRecord, fact: LaunchFailed, now: float) -> Step:
    return _ended_by_us(record, None, now) if record.killed_for else _gone_as_asked(record, now)


def exited_by_itself(record: WorkerRecord, fact: ProcessExited, now: float) -> Step:
    return _crashed(record, _explained(record, fact.cause), now)


def _explained(record: WorkerRecord, cause: ExitCause) -> ExitCause:
    """``cause`` with the failure that the worker reported, if it did."""
    failure = record.status.failure if record.status else ""
    if cause.code == ExitCode.CONFIGURATION:
        return replace(cause, kind=ExitKind.CONFIGURATION, detail=failure or "configuration error; see its log")
    if cause.code == ExitCode.NO_SPACE:
        return replace(cause, kind=ExitKind.NO_SPACE, detail=failure or "no space left; see its log")
    return replace(cause, detail=f"{cause.detail}: {failure}") if failure else cause


def exited_while_stopping(record: WorkerRecord, fact: ProcessExited, now: float) -> Step:
    if record.killed_for:
        return _ended_by_us(record, fact.cause.code, now)
    return _gone_as_asked(replace(record, last_exit=fact.cause), now)


def _ended_by_us(record: WorkerRecord, code: int | None, now: float) -> Step:
    """We killed it because it did not work, or gave up its launch: a crash, unless somebody stopped it."""
    cause = ExitCause(record.killed_kind, record.killed_for, code)
    if record.restart_asked and record.wanted is Wanted.UP:
        return _gone_as_asked(replace(record, last_exit=cause), now)
    if cause.kind is ExitKind.MEMORY_LIMIT:
        return _too_big(record, cause, now)
    return _crashed(record, cause, now)


def _too_big(record: WorkerRecord, cause: ExitCause, now: float) -> Step:
    """This is no crash, so it never leads to quarantine; but each further time within an hour it stays down longer."""
    ends = limits.remember(record.limit_ends, now)
    record = replace(record, last_exit=cause, limit_ends=ends)
    if record.wanted is Wanted.DOWN:
        return _rest(record, DOWN, now, record.asked)
    record = replace(record, asked_by=None, asked="")
    if not wants_restart(record.rules.restart.mode, cause):
        mode = record.rules.restart.mode
        return _rest(record, DOWN, now, f"{cause}; restart mode is {mode}", wanted=Wanted.DOWN)
    if (delay := limits.rest(len(ends))) > 0:
        return _rest(record, BACKOFF, now, str(cause), deadline=now + delay)
    return _restart_by_itself(record, now)


def _gone_as_asked(record: WorkerRecord, now: float) -> Step:
    if record.restart_asked and record.wanted is Wanted.UP:
        return _launch(record, now, record.asked, crashes=())
    return _rest(record, DOWN, now, record.asked, crashes=())


def hear_starting(record: WorkerRecord, fact: PulseReceived, now: float) -> Step:
    """A worker that says it serves is ready once it answers a probe."""
    record = replace(record, status=fact.status)
    if fact.status.phase == Phase.SERVING and not record.probe_pending:
        return _probe(record, record.rules.probes.startup.timeout)
    return Step(record)


def hear(record: WorkerRecord, fact: PulseReceived, now: float) -> Step:
    return Step(replace(record, status=fact.status))


def probed_starting(record: WorkerRecord, fact: ProbeAnswered, now: float) -> Step:
    due = health.scheduled(record.rules.probes.startup, now)
    record = replace(record, probe_pending=False, readiness=due, liveness=due)
    status, _ = _own_answer(record, fact)
    if status is None:
        return Step(record)
    ready = _become_ready(replace(record, status=status, settings_due=False), now)
    return _configure(ready) if record.settings_due else Step(ready)


def _own_answer(record: WorkerRecord, fact: ProbeAnswered) -> tuple[StatusDocument | None, str]:
    """The status, if it is from this very process, or why it does not count. On the port may be a twin, of another
    supervisor: it has the same name, and may have the same generation."""
    if fact.status is None or fact.status.pid == record.pid:
        return fact.status, fact.reason
    return None, f"another process answers on the port (pid {fact.status.pid})"


def _become_ready(record: WorkerRecord, now: float) -> WorkerRecord:
    probes = record.rules.probes
    return _enter(
        record,
        READY,
        now,
        ready_since=record.ready_since if record.ready_since is not None else now,
        readiness=health.scheduled(probes.readiness, now),
        liveness=health.scheduled(probes.liveness, now),
    )


def probed(record: WorkerRecord, fact: ProbeAnswered, now: float) -> Step:
    """A failed readiness only shows; a failed liveness replaces the process. That it does not answer shows at the first
    failed probe."""
    probes, (status, reason) = record.rules.probes, _own_answer(record, fact)
    ok = status is not None
    first = now if record.silent_since is None else record.silent_since
    record = replace(
        record,
        probe_pending=False,
        status=status or record.status,
        silent_since=None if ok else first,
        silence="" if ok else reason,
        readiness=health.answered(record.readiness, probes.readiness, ok, now),
        liveness=health.answered(record.liveness, probes.liveness, ok, now),
    )
    if health.has_failed(record.liveness, probes.liveness):
        return _kill(record, now, f"did not answer {record.liveness.failures} probes in a row: {reason}")
    if record.state is READY and health.has_failed(record.readiness, probes.readiness):
        return Step(_enter(record, UNREADY, now, f"readiness probe failed: {reason}"))
    if record.state is UNREADY and ok and health.has_succeeded(record.readiness, probes.readiness):
        return Step(_enter(record, READY, now))
    return Step(record)


def weigh(record: WorkerRecord, fact: LoadSeen, now: float) -> Step:
    """If the kernel enforces the limits, there are only events to make. Those about the host's limits name the
    fleet."""
    if not fact.load.of_host:
        record = replace(record, pressure=limits.pressure(record.pressure, fact.load))
    if why := limits.why_end(fact.load):
        return _terminate(record, now, why, killed_for=why, killed_kind=ExitKind.MEMORY_LIMIT)
    return Step(record)


def start_is_due(record: WorkerRecord, fact: DeadlineReached, now: float) -> Step:
    if record.deadline is not None and record.deadline <= now:
        late = f"was not ready within {record.rules.probes.start_timeout:g} s of its start"
        return _kill(record, now, late if record.reason != ADOPTED else "has not answered since it was adopted")
    return probe_is_due(record, fact, now)


def probe_is_due(record: WorkerRecord, fact: DeadlineReached, now: float) -> Step:
    if record.pid is None or record.probe_pending:
        return Step(record)
    probes = record.rules.probes
    if record.state is STARTING:  # start-up gates the other two
        return _probe(record, probes.startup.timeout) if record.readiness.due <= now else Step(record)
    timeout = health.probe_timeout(record.readiness, record.liveness, probes, now)
    return Step(record) if timeout is None else _probe(record, timeout)


def grace_is_over(record: WorkerRecord, fact: DeadlineReached, now: float) -> Step:
    if record.deadline is None or record.deadline > now:
        return Step(record)
    record = replace(record, deadline=now + KILL_AGAIN_AFTER)
    if record.pid is None:
        return Step(record, (AbandonLaunch(record.name, record.generation),) if _launch_hangs(record, now) else ())
    return Step(record, (Kill(record.name, record.generation, record.pid),))


def _launch_hangs(record: WorkerRecord, now: float) -> bool:
    """A launch may wait for the imports of its forkserver, and a new forkserver delays every other launch."""
    patience = max(record.rules.probes.start_timeout, LAUNCH_PATIENCE)
    return record.started_at is not None and now - record.started_at >= patience


def wait_is_over(record: WorkerRecord, fact: DeadlineReached, now: float) -> Step:
    if record.deadline is None or record.deadline > now:
        return Step(record)
    if waits_for_space(record):  # hundreds of tries in a night are no restarts
        return _launch(record, now, f"another try after: {record.last_exit}")
    return _restart_by_itself(record, now)


def waits_for_space(record: WorkerRecord) -> bool:
    """Whether the last try ended at a full disk, and nobody has asked for another since."""
    full = record.last_exit is not None and record.last_exit.kind is ExitKind.NO_SPACE
    return full and record.asked_by is None and record.ready_since is None


def asked_at_rest(record: WorkerRecord, fact: OperatorAsked, now: float) -> Step:
    """Down, waiting or quarantined: there is no process to end. The request resets the crash count."""
    if fact.request is OperatorRequest.STOP:
        return _rest(record, DOWN, now, _sentence(fact), wanted=Wanted.DOWN, **_asked(fact))
    return _launch(record, now, _sentence(fact), wanted=Wanted.UP, crashes=(), **_asked(fact))


def asked_running(record: WorkerRecord, fact: OperatorAsked, now: float) -> Step:
    if fact.request is OperatorRequest.START:
        return Step(replace(record, wanted=Wanted.UP))
    if fact.request is OperatorRequest.STOP:
        return _terminate(record, now, _sentence(fact), wanted=Wanted.DOWN, **_asked(fact))
    return _terminate(record, now, _sentence(fact), wanted=Wanted.UP, restart_asked=True, **_asked(fact))


def asked_stopping(record: WorkerRecord, fact: OperatorAsked, now: float) -> Step:
    """The last request counts; the stop in progress continues."""
    up = fact.request is not OperatorRequest.STOP
    return Step(replace(record, wanted=Wanted.UP if up else Wanted.DOWN, restart_asked=up, **_asked(fact)))


def _asked(fact: OperatorAsked) -> dict[str, Any]:
    return {"asked_by": fact.by, "asked": _sentence(fact)}


_PAST = {
    OperatorRequest.START: "started",
    OperatorRequest.STOP: "stopped",
    OperatorRequest.RESTART: "restarted",
}


def _sentence(fact: OperatorAsked) -> str:
    sentence = f"{_PAST[fact.request]} {BY_WORDS[fact.by]}"
    return f"{sentence}: {fact.why}" if fact.why else sentence


def take_rules(record: WorkerRecord, fact: RulesChanged, now: float) -> Step:
    """Shorter periods apply at once; a running deadline stays as it is."""
    probes = fact.rules.probes
    gated = record.state is STARTING
    record = replace(
        record,
        rules=fact.rules,
        readiness=health.no_later(record.readiness, probes.startup if gated else probes.readiness, now),
        liveness=health.no_later(record.liveness, probes.startup if gated else probes.liveness, now),
    )
    if not fact.told:
        return Step(record)
    if gated:  # a new process cannot listen yet; one that still waits is launched with the new ones
        return Step(replace(record, settings_due=record.started_at is not None))
    return _configure(record) if record.state in (READY, UNREADY) else Step(record)


def _configure(record: WorkerRecord) -> Step:
    if record.pid is None:
        return Step(record)
    return Step(record, (Configure(record.name, record.generation, record.pid),))


_AT_REST: dict[type, Handler] = {
    LaunchSent: ignore,
    ProcessStarted: ignore,
    ProcessAdopted: adopt,
    LaunchFailed: ignore,
    ProcessExited: ignore,
    PulseReceived: ignore,
    ProbeAnswered: ignore,
    DeadlineReached: wait_is_over,
    OperatorAsked: asked_at_rest,
    RulesChanged: take_rules,
    LoadSeen: ignore,
}
_RUNNING: dict[type, Handler] = {
    LaunchSent: ignore,
    ProcessStarted: ignore,
    ProcessAdopted: ignore,
    LaunchFailed: ignore,
    ProcessExited: exited_by_itself,
    PulseReceived: hear,
    ProbeAnswered: probed,
    DeadlineReached: probe_is_due,
    OperatorAsked: asked_running,
    RulesChanged: take_rules,
    LoadSeen: weigh,
}
_ROWS: dict[WorkerState, dict[type, Handler]] = {
    DOWN: {**_AT_REST, DeadlineReached: ignore},
    STARTING: {
        **_RUNNING,
        LaunchSent: launch_sent,
        ProcessStarted: note_process,
        LaunchFailed: launch_failed,
        PulseReceived: hear_starting,
        ProbeAnswered: probed_starting,
        DeadlineReached: start_is_due,
    },
    READY: _RUNNING,
    UNREADY: _RUNNING,
    STOPPING: {
        LaunchSent: ignore,
        ProcessStarted: end_newborn,
        ProcessAdopted: ignore,
        LaunchFailed: launch_failed_while_stopping,
        ProcessExited: exited_while_stopping,
        PulseReceived: hear,
        ProbeAnswered: ignore,
        DeadlineReached: grace_is_over,
        OperatorAsked: asked_stopping,
        RulesChanged: take_rules,
        LoadSeen: ignore,
    },
    BACKOFF: _AT_REST,
    QUARANTINED: _AT_REST,
}
TABLE: dict[tuple[WorkerState, type], Handler] = {
    (state, kind): handler for state, row in _ROWS.items() for kind, handler in row.items()
}
