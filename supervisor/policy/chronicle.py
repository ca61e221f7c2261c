"""Makes the events of a step, with their cause, from the records before and after it. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleet_common.contract import StatusDocument
from supervisor.facts import Fact, LaunchFailed, LoadSeen, ProcessAdopted, ProcessExited
from supervisor.history import Event, EventKind
from supervisor.policy import limits
from supervisor.policy.lifecycle import ADOPTED, waits_for_space
from supervisor.record import By, ExitCause, ExitKind, WorkerRecord, WorkerState

PROBE = "probe"
"""The cause of an event that follows from a probe."""
NEVER = ExitCause(ExitKind.UNKNOWN, "cause unknown")

_WARNINGS = {
    EventKind.UNREADY,
    EventKind.BACKOFF,
    EventKind.QUARANTINED,
    EventKind.JOBS_INTERRUPTED,
    EventKind.DATASET_FAILED,
    EventKind.LIMIT_NEAR,
    EventKind.LIMIT_REACHED,
    EventKind.LOGIN_FAILED,
    EventKind.CALL_REFUSED,
}


def tell(before: WorkerRecord, after: WorkerRecord, fact: Fact, now: float) -> tuple[Event, ...]:
    """The events of one step, in their order; empty when nothing changed that an operator should know."""
    if after is before or _is_another_try(before, after):
        return ()
    return tuple(_tell(before, after, fact, now))


def _is_another_try(before: WorkerRecord, after: WorkerRecord) -> bool:
    """While a disk is full, each try would make three events a quarter of a minute."""
    tried = (before.state, after.state) in (
        (WorkerState.QUARANTINED, WorkerState.STARTING),
        (WorkerState.STARTING, WorkerState.QUARANTINED),
    )
    return tried and waits_for_space(before) and waits_for_space(after)


def _tell(before: WorkerRecord, after: WorkerRecord, fact: Fact, now: float) -> Iterator[Event]:
    if isinstance(fact, ProcessExited) or (isinstance(fact, LaunchFailed) and _was_for_nothing(before)):
        yield _exited(before, after)
        yield from _relieved(before, after)
    if isinstance(fact, LoadSeen):
        yield from _weighed(before, after, fact)
    if isinstance(fact, ProcessAdopted):
        text = f"adopted (pid {after.pid}): it was running before this supervisor started"
        yield _event(after, EventKind.ADOPTED, text, cause=By.ADOPTION.value)
    elif after.generation != before.generation:
        yield _starting(before, after)
    elif after.state is not before.state:
        yield _changed(before, after, now)
    yield from _heard(before.status, after)


def _was_for_nothing(before: WorkerRecord) -> bool:
    """Whether somebody still waited for a launch that failed."""
    return before.state is WorkerState.STARTING or bool(before.killed_for)


def _event(record: WorkerRecord, kind: EventKind, text: str, **more: Any) -> Event:
    return Event(
        **{
            "name": record.name,
            "event": kind,
            "text": text,
            "state": record.state.value,
            "generation": record.generation,
            "pid": record.pid,
            "restarts": record.restarts,
            "warning": kind in _WARNINGS,
            **more,
        }
    )


def _exited(before: WorkerRecord, after: WorkerRecord) -> Event:
    """About the process that has ended, so with its pid and generation."""
    asker = before.asked_by if before.state is WorkerState.STOPPING and not before.killed_for else None
    end = after.last_exit or NEVER
    return _event(
        after,
        EventKind.EXITED,
        f"ended: {end}",
        cause=asker.value if asker else end.kind.value,
        generation=before.generation,
        pid=before.pid,
        exit_code=end.code,
        signal=end.signal,
        warning=asker is None,
    )


def _starting(before: WorkerRecord, after: WorkerRecord) -> Event:
    if after.restarts != before.restarts:
        cause = after.last_exit.kind.value if after.last_exit else ""
        text = f"restarting (restart {after.restarts}) {after.reason}"
        return _event(after, EventKind.STARTING, text, cause=cause, warning=True)
    return _event(after, EventKind.STARTING, f"starting: {after.reason}", cause=after.asked_by or "")


def _changed(before: WorkerRecord, after: WorkerRecord, now: float) -> Event:
    match after.state:
        case WorkerState.READY:
            return _event(after, EventKind.READY, _ready(before, after, now))
        case WorkerState.UNREADY:
            return _event(after, EventKind.UNREADY, f"not ready: {after.reason}", cause=PROBE)
        case WorkerState.STOPPING if after.killed_kind is ExitKind.MEMORY_LIMIT:
            return _event(after, EventKind.STOPPING, f"stopping: {after.reason}", cause=after.killed_kind, warning=True)
        case WorkerState.STOPPING if after.killed_for:
            return _event(after, EventKind.STOPPING, f"killed: {after.reason}", cause=PROBE, warning=True)
        case WorkerState.STOPPING:
            return _event(after, EventKind.STOPPING, f"stopping: {after.reason}", cause=after.asked_by or "")
        case WorkerState.BACKOFF:
            return _event(after, EventKind.BACKOFF, _waiting(after, "waiting to restart", now), cause=_exit_kind(after))
        case WorkerState.QUARANTINED:
            return _event(after, EventKind.QUARANTINED, _waiting(after, "quarantined", now), cause=_exit_kind(after))
    return _event(after, EventKind.DOWN, f"down: {after.reason}", cause=after.asked_by or _exit_kind(after))


def _weighed(before: WorkerRecord, after: WorkerRecord, fact: LoadSeen) -> Iterator[Event]:
    """One event when a limit comes near, one when it is reached, and one when it is neither any more."""
    for kind, name, text in limits.changes(before.pressure, after.pressure):
        yield _event(after, kind, text, cause=name)
    if fact.load.oom_kills:
        yield _event(after, EventKind.LIMIT_REACHED, limits.out_of_memory(fact.load), cause=limits.OOM)


def _relieved(before: WorkerRecord, after: WorkerRecord) -> Iterator[Event]:
    """Limits that a process was near, or had reached, are cleared when it ends; the next process starts anew."""
    felt = before.status.limited.keys() if before.status else set()
    for name in sorted((before.pressure.near.keys() | before.pressure.reached.keys() | felt) - {limits.OOM}):
        text = f"no longer near {limits.in_words(name)}: its process ended"
        yield _event(after, EventKind.LIMIT_CLEARED, text, cause=name, generation=before.generation, pid=before.pid)


def _felt(old: dict[str, str], new: dict[str, str], after: WorkerRecord) -> Iterator[Event]:
    """Limits that the worker enforces itself."""
    for name in sorted(new.keys() - old.keys()):
        yield _event(after, EventKind.LIMIT_REACHED, f"limit reached: {new[name]}", cause=name)
    for name in sorted(old.keys() - new.keys()):
        text = _CLEARED.get(name, f"no longer at {limits.in_words(name)}")
        yield _event(after, EventKind.LIMIT_CLEARED, text, cause=name)


_CLEARED = {
    "disk": "disk space is above the limit again",
    "bandwidth": "network traffic is below the limit again",
    "training_sessions": "trainings no longer wait for the session limit",
}


def _ready(before: WorkerRecord, after: WorkerRecord, now: float) -> str:
    if before.state is not WorkerState.STARTING or after.started_at is None:
        return "ready again"
    if before.reason == ADOPTED:
        return f"answers (pid {after.pid})"
    return f"ready in {now - after.started_at:.2f} s (pid {after.pid})"


def _waiting(record: WorkerRecord, what: str, now: float) -> str:
    again = "" if record.deadline is None else f"; next attempt in {record.deadline - now:.1f} s"
    return f"{what}: {record.reason}{again}"


def _exit_kind(record: WorkerRecord) -> str:
    return record.last_exit.kind.value if record.last_exit else ""


def _heard(old: StatusDocument | None, after: WorkerRecord) -> Iterator[Event]:
    """What is new in the worker's status."""
    new = after.status
    if new is None or new == old:
        return
    same = old is not None and old.generation == new.generation
    if new.interrupted_jobs and not (same and old is not None and old.interrupted_jobs):
        jobs = f"the process ended and interrupted these jobs: {', '.join(new.interrupted_jobs)}"
        yield _event(after, EventKind.JOBS_INTERRUPTED, jobs)
    if new.jobs_cut_off > (old.jobs_cut_off if same and old is not None else 0):
        yield _event(after, EventKind.JOBS_INTERRUPTED, f"a job was interrupted: {new.last_job_cut_off}")
    yield from _refused(old if same else None, new, after)
    yield from _felt(old.limited if same and old is not None else {}, new.limited, after)
    if same and old is not None:
        yield from _datasets(old, new, after)
    known = old.registered if same and old is not None else None
    if new.registered and not known:
        yield _event(after, EventKind.REGISTERED, new.registration or "registered")
    elif known and not new.registered:
        yield _event(after, EventKind.UNREGISTERED, f"no longer registered: {new.registration or new.heartbeat_error}")


def _refused(old: StatusDocument | None, new: StatusDocument, after: WorkerRecord) -> Iterator[Event]:
    """How many logins and calls the datasite refused since its last report; it reports once a minute."""
    logins = new.failed_logins - (old.failed_logins if old else 0)
    calls = new.refused_calls - (old.refused_calls if old else 0)
    if logins > 0:
        yield _event(after, EventKind.LOGIN_FAILED, f"{_times(logins, 'failed login')} {new.last_failed_login}")
    if calls > 0:
        yield _event(after, EventKind.CALL_REFUSED, f"{_times(calls, 'refused call')} {new.last_refused_call}")


def _times(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s, the last"


def _datasets(old: StatusDocument, new: StatusDocument, after: WorkerRecord) -> Iterator[Event]:
    """Changes of the local files that the datasite publishes; compared only with the same process."""
    before = {one.get("name"): one for one in old.datasets}
    for one in new.datasets:
        name, was = one.get("name"), before.get(one.get("name"), {})
        if one.get("published_at") and one.get("published_at") != was.get("published_at"):
            what = "updated" if was.get("published_at") else "published"
            yield _event(after, EventKind.DATASET_PUBLISHED, f"dataset {name} {what}")
        if one.get("problem") and one.get("problem") != was.get("problem"):
            yield _event(after, EventKind.DATASET_FAILED, f"dataset {name}: {one['problem']}")
