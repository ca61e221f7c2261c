"""``fleet restart --rolling``: one datasite after another, each when those before it are ready.

``choose`` decides, and is pure; ``roll`` sends requests, waits and shows. The supervisor does not know of it: when this
command is interrupted, the requests already sent are carried out, and the other datasites stay as they are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from supervisor.faces.client import ControlClient
from supervisor.faces.follow import SentRequest, Verdict, bad_news, by_name, good_news, judge
from supervisor.faces.follow import choose as named
from supervisor.faces.formatting import clean, duration
from supervisor.record import OperatorRequest, Wanted
from supervisor.snapshot import WorkerSnapshot

_LONGEST_POLL = 1.0


@dataclass(frozen=True, slots=True)
class Pace:
    """``max_unavailable``: how many datasites restart at once. Times are seconds."""

    max_unavailable: int
    wait_training: float
    timeout: float


@dataclass(frozen=True, slots=True)
class Choice:
    """What may restart now, and by name what the others wait for."""

    go: tuple[str, ...] = ()
    waiting_for: Mapping[str, str] = field(default_factory=dict)


def choose(
    pending: Sequence[str], under_way: Sequence[str], seen: Mapping[str, WorkerSnapshot], pace: Pace, waited: float
) -> Choice:
    """``waited``: seconds for which a slot was free and only trainings prevented a restart."""
    free = pace.max_unavailable - len(under_way)
    go: list[str] = []
    waiting: dict[str, str] = {}
    for name in pending:
        if free <= len(go):
            break
        training = seen[name].active_experiments if name in seen else []
        if training and waited < pace.wait_training:
            left = duration(pace.wait_training - waited)
            waiting[name] = f"training {', '.join(map(clean, training))} (at most {left} more)"
        else:
            go.append(name)
    return Choice(tuple(go), waiting)


@dataclass(slots=True)
class Progress:
    """Where messages go. ``advance`` gets the number of finished restarts, and what is waited for."""

    good: Callable[[str], None]
    bad: Callable[[str], None]
    advance: Callable[[int, str], None]


def chosen(client: ControlClient, names: list[str] | None) -> list[str]:
    """The datasites to restart; None: every datasite that should run. Raises Fault for an unknown name."""
    wanted, known = named(client.status(), names)
    return [name for name in wanted if names or known[name].wanted == Wanted.UP]


def roll(client: ControlClient, names: Sequence[str], pace: Pace, progress: Progress) -> bool:
    """Restart ``names`` in order; False when one does not become ready: then those after it stay as they are."""
    pending, under_way = list(names), dict[str, tuple[SentRequest, float]]()
    began_waiting = time.monotonic()
    revision: int | None = None
    while pending or under_way:
        snapshot = client.status(after=revision, timeout=_LONGEST_POLL if revision is not None else 0.0)
        revision, seen, now = snapshot.revision, by_name(snapshot), time.monotonic()
        if not _settle(under_way, seen, pace.timeout, progress):
            _report_left(pending, progress)
            return False
        choice = choose(pending, list(under_way), seen, pace, now - began_waiting)
        for name in choice.go:
            pending.remove(name)
            generation = client.ask(name, OperatorRequest.RESTART)
            under_way[name] = (SentRequest(OperatorRequest.RESTART, name, seen.get(name), generation), now)
        if choice.go or not choice.waiting_for:
            began_waiting = now
        progress.advance(len(names) - len(pending) - len(under_way), _what(choice, under_way))
    return True


def _settle(
    under_way: dict[str, tuple[SentRequest, float]],
    seen: Mapping[str, WorkerSnapshot],
    timeout: float,
    progress: Progress,
) -> bool:
    """Remove those that are ready again; False when one is not."""
    for name, (sent, since) in list(under_way.items()):
        took = time.monotonic() - since
        verdict = judge(sent, seen.get(name))
        if verdict is Verdict.DONE:
            progress.good(good_news(sent, seen.get(name), took))
            del under_way[name]
        elif verdict is Verdict.FAILED or took > timeout:
            progress.bad(bad_news(sent, seen.get(name), took))
            return False
    return True


def _report_left(pending: Sequence[str], progress: Progress) -> None:
    if pending:
        progress.bad(f"the rolling restart stops here; not restarted: {', '.join(map(clean, pending))}")


def _what(choice: Choice, under_way: Mapping[str, object]) -> str:
    waits = [f"{clean(name)} {why}" for name, why in choice.waiting_for.items()]
    return "; ".join([*(f"restarting {clean(name)}" for name in under_way), *waits])
