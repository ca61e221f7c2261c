"""Sends start, stop and restart to the supervisor, and follows its snapshots until they are done.

``judge`` decides, and is pure; ``follow`` waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum

from supervisor.faces.client import ControlClient
from supervisor.faces.faults import unknown_name
from supervisor.faces.formatting import clean
from supervisor.record import OperatorRequest, Wanted, WorkerState
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot

_AT_REST = (WorkerState.DOWN, WorkerState.BACKOFF, WorkerState.QUARANTINED)
_LONGEST_POLL = 1.0


class Verdict(Enum):
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request that was sent. ``before``: the worker at that time, None when there was none; ``generation``: that of
    its process then."""

    request: OperatorRequest
    name: str
    before: WorkerSnapshot | None
    generation: int


def judge(sent: SentRequest, now: WorkerSnapshot | None) -> Verdict:
    """Whether the request is done, has failed for good, or is still under way."""
    if now is None:
        return Verdict.DONE if sent.request is OperatorRequest.STOP else Verdict.WAITING
    if sent.request is OperatorRequest.STOP:
        return Verdict.DONE if now.state == WorkerState.DOWN and now.wanted == Wanted.DOWN else Verdict.WAITING
    renewed = now.generation > sent.generation
    if now.ready and now.wanted == Wanted.UP and (renewed or sent.request is OperatorRequest.START):
        return Verdict.DONE
    # An unchanged state only says that the supervisor has not handled the request yet.
    if now.state in _AT_REST and (renewed or sent.before is None or now.state != sent.before.state):
        return Verdict.FAILED
    return Verdict.WAITING


def was_so_already(sent: SentRequest, now: WorkerSnapshot) -> bool:
    """Whether the request found nothing to do."""
    if sent.before is None:
        return False
    same_process = now.generation == sent.before.generation
    return same_process and now.state == sent.before.state and now.wanted == sent.before.wanted


def good_news(sent: SentRequest, now: WorkerSnapshot | None, took: float) -> str:
    """``detroit_line_beta ready in 0.41 s (pid 123)``."""
    if now is None:
        return f"{clean(sent.name)} stopped and removed in {took:.2f} s"
    what = "stopped" if sent.request is OperatorRequest.STOP else "ready"
    pid = "" if now.pid is None else f" (pid {now.pid})"
    if was_so_already(sent, now):
        return f"{clean(now.name)} is already {what}{pid}"
    return f"{clean(now.name)} {what} in {took:.2f} s{pid}"


def bad_news(sent: SentRequest, now: WorkerSnapshot | None, took: float) -> str:
    """Why it failed, and what to do next."""
    if now is None:
        return f"{clean(sent.name)} not found after {took:.1f} s\n  next step: fleet events fleet"
    reason = clean(now.reason or now.last_exit or "reason unknown")
    verb = {OperatorRequest.STOP: "stopped", OperatorRequest.START: "ready", OperatorRequest.RESTART: "ready"}
    still = f"still {clean(now.state)} after {took:.1f} s" if judge(sent, now) is Verdict.WAITING else clean(now.state)
    return f"{clean(now.name)} not {verb[sent.request]}: {still}: {reason}\n  next step: fleet logs {clean(now.name)}"


def by_name(snapshot: FleetSnapshot) -> dict[str, WorkerSnapshot]:
    dashboard = (snapshot.dashboard,) if snapshot.dashboard else ()
    return {worker.name: worker for worker in (*snapshot.datasites, *dashboard)}


def ask(client: ControlClient, names: Iterable[str] | None, request: OperatorRequest) -> list[SentRequest]:
    """Send the request for every name (None: every datasite).

    An unknown name raises Fault before any request is sent.
    """
    wanted, known = choose(client.status(), names)
    return [SentRequest(request, name, known[name], client.ask(name, request)) for name in wanted]


def choose(snapshot: FleetSnapshot, names: Iterable[str] | None) -> tuple[list[str], dict[str, WorkerSnapshot]]:
    """The named workers, each once (None: every datasite), and all workers by name. Raises Fault for an unknown
    name."""
    known = by_name(snapshot)
    wanted = list(dict.fromkeys(names or (datasite.name for datasite in snapshot.datasites)))
    for name in wanted:
        if name not in known:
            raise unknown_name(name, known)
    return wanted, known


@dataclass(frozen=True, slots=True)
class Telling:
    """Where messages go: ``good`` and ``bad`` get whole sentences, ``progress`` the names still waited for."""

    good: Callable[[str], None]
    bad: Callable[[str], None]
    progress: Callable[[str], None]


def follow(client: ControlClient, requests: Sequence[SentRequest], timeout: float, telling: Telling) -> bool:
    """Wait until every request is done; False when one failed, or took longer than ``timeout`` seconds."""
    start, open_ones, failed = time.monotonic(), list(requests), False
    revision: int | None = None
    while open_ones:
        left = timeout - (time.monotonic() - start)
        telling.progress(", ".join(clean(one.name) for one in open_ones))
        snapshot = client.status(after=revision, timeout=max(0.0, min(left, _LONGEST_POLL)))
        revision, took = snapshot.revision, time.monotonic() - start
        open_ones, bad = _settle(open_ones, snapshot, took, telling, last_look=took >= timeout)
        failed = failed or bad
    return not failed


def _settle(
    open_ones: list[SentRequest], snapshot: FleetSnapshot, took: float, telling: Telling, *, last_look: bool
) -> tuple[list[SentRequest], bool]:
    """Print what is decided by now; returns what to wait for, and whether something failed."""
    seen, waiting, failed = by_name(snapshot), [], False
    for one in open_ones:
        now = seen.get(one.name)
        verdict = judge(one, now)
        if verdict is Verdict.DONE:
            telling.good(good_news(one, now, took))
        elif verdict is Verdict.FAILED or last_look:
            telling.bad(bad_news(one, now, took))
            failed = True
        else:
            waiting.append(one)
    return waiting, failed
