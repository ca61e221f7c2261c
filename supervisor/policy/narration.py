"""What is worth a line in the log: one sentence for each change of a record. Pure."""

from __future__ import annotations

from supervisor.record import WorkerRecord, WorkerState

_WARNING_STATES = {WorkerState.UNREADY, WorkerState.BACKOFF, WorkerState.QUARANTINED}


def narrate(before: WorkerRecord, after: WorkerRecord, now: float) -> str | None:
    """The sentence that tells how ``after`` came of ``before``; None when nothing worth telling happened."""
    if after.generation != before.generation and after.state is WorkerState.STARTING:
        return _about_start(before, after)
    if after.state is before.state:
        return None
    if after.state is WorkerState.READY and after.started_at is not None:
        if before.state is WorkerState.STARTING:
            return f"ready in {now - after.started_at:.2f} s (pid {after.pid})" if not _adopted(before) else "answers"
        return "ready again"
    if after.state in (WorkerState.BACKOFF, WorkerState.QUARANTINED):
        return _about_wait(after, now)
    ended = f" (ended: {after.last_exit})" if after.state is WorkerState.DOWN and after.last_exit else ""
    return f"{after.state}: {after.reason}{ended}" if after.reason else f"{after.state}{ended}"


def is_warning(after: WorkerRecord, before: WorkerRecord) -> bool:
    """Whether the change is one that somebody should look at."""
    return after.state in _WARNING_STATES or after.restarts != before.restarts or bool(after.killed_for)


def _adopted(record: WorkerRecord) -> bool:
    return record.reason == "adopted"


def _about_start(before: WorkerRecord, after: WorkerRecord) -> str:
    if _adopted(after):
        return f"adopted (pid {after.pid}), running since before this supervisor"
    if after.restarts != before.restarts:
        return f"ended ({after.last_exit}); restarting, restart {after.restarts}"
    return f"starting: {after.reason}" if after.reason else "starting"


def _about_wait(after: WorkerRecord, now: float) -> str:
    again = "" if after.deadline is None else f"; next attempt in {after.deadline - now:.1f} s"
    what = "waiting to restart" if after.state is WorkerState.BACKOFF else "quarantined"
    return f"{what}: {after.reason}{again}"
