"""Checks the events: every restart and injected end is reported, and none is without a cause. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Event = dict[str, Any]
_ASKED = {"operator", "reload", "adoption", "fleet"}
"""Causes of an end that somebody asked fleet for."""
_ENDED_BY_US = "hung"
_SAMPLES = 3
FD_TOLERANCE = 3
"""A probe or a request may be under way at either end of the comparison."""


@dataclass(frozen=True, slots=True)
class Injection:
    """A signal that was sent to a worker. ``supervised``: a supervisor was there, so its end must be reported."""

    name: str
    pid: int
    signal: str
    at: float
    supervised: bool


@dataclass(frozen=True, slots=True)
class Excuse:
    """From ``since`` to ``until`` that datasite may have ended by itself, and its events may be lost: those of the
    restarts after ``first``, up to ``last``."""

    name: str
    since: float
    until: float
    first: int
    last: int

    def covers(self, name: str, number: int) -> bool:
        return self.name == name and self.first < number <= self.last


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the table at the end."""

    what: str
    problems: tuple[str, ...] = ()
    detail: str = ""

    @property
    def holds(self) -> bool:
        return not self.problems


def unexplained_restarts(events: Sequence[Event], counts: Mapping[str, int], excuses: Sequence[Excuse]) -> list[str]:
    """Restarts without a pair of events that gives the cause. Counts begin anew with a fleet that was brought down in
    order; the last ones are ``counts``, earlier ones are known by the events themselves."""
    *earlier, last = _lives(events)
    lives = [(life, _counted(life)) for life in earlier] + [(last, counts)]
    return [problem for life, restarts in lives for problem in _unexplained(life, restarts, excuses)]


def _unexplained(life: Sequence[Event], counts: Mapping[str, int], excuses: Sequence[Excuse]) -> list[str]:
    known = [excuse for excuse in excuses if _is_of(excuse, life)]
    return [
        f"{name}: {problem}"
        for name, count in counts.items()
        for number in range(1, count + 1)
        if not any(excuse.covers(name, number) for excuse in known)
        and (problem := _restart_problem([event for event in life if event["name"] == name], number))
    ]


def reported_restarts(events: Sequence[Event]) -> int:
    """How many restarts the events count, over every life of the fleet."""
    return sum(count for life in _lives(events) for count in _counted(life).values())


def _counted(life: Sequence[Event]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in life:
        counts[event["name"]] = max(counts.get(event["name"], 0), event["restarts"])
    return counts


def _is_of(excuse: Excuse, life: Sequence[Event]) -> bool:
    return not life or (_moment(life[0]) <= excuse.until and excuse.since <= _moment(life[-1]))


def _moment(event: Event) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()


def _restart_problem(events: list[Event], number: int) -> str:
    started = [one for one in events if one["event"] == "starting" and one["restarts"] == number and one["warning"]]
    if not started:
        return f"restart {number} is not reported"
    if not started[0]["cause"]:
        return f"restart {number} is reported without a cause"
    before = started[0]["generation"] - 1
    ends = [one for one in events if one["event"] == "exited" and one["generation"] == before]
    return "" if any(one["cause"] for one in ends) else f"restart {number} is reported, but the end before it is not"


def _lives(events: Sequence[Event]) -> list[Sequence[Event]]:
    """The events, parted where the fleet was brought down in order."""
    downs = [number for number, event in enumerate(events, 1) if event["event"] == "supervisor_stopped"]
    return [events[begin:end] for begin, end in zip([0, *downs], [*downs, len(events)], strict=True)]


def unreported_ends(events: Iterable[Event], injections: Iterable[Injection], excuses: Sequence[Excuse]) -> list[str]:
    """Injected SIGKILLs without their event."""
    ends = {event["pid"]: event for event in events if event["event"] == "exited"}
    return [
        f"{one.name}: the end of pid {one.pid} by {one.signal} is not reported"
        for one in injections
        if one.supervised and one.signal == "SIGKILL"
        if not _is_reported(ends.get(one.pid)) and not _excused(one, excuses)
    ]


def _is_reported(end: Event | None) -> bool:
    """With its signal; without it only where nobody could take the exit status of a process that was adopted."""
    return end is not None and (end["signal"] == "SIGKILL" or end["cause"] in {"unknown", *_ASKED, _ENDED_BY_US})


def _excused(one: Injection, excuses: Sequence[Excuse]) -> bool:
    return any(excuse.name == one.name and excuse.since <= one.at <= excuse.until for excuse in excuses)


def uncaused_ends(events: Iterable[Event], injections: Iterable[Injection], excuses: Sequence[Excuse]) -> list[str]:
    """Ends that nobody asked for and no injection caused."""
    hit = {one.pid for one in injections}
    return [
        f"{event['name']}: pid {event['pid']} {event['text']} ({event['at']})"
        for event in events
        if event["event"] == "exited" and event["cause"] not in _ASKED and event["pid"] not in hit
        if not any(excuse.name == event["name"] and _within(event, excuse) for excuse in excuses)
    ]


def _within(event: Event, excuse: Excuse) -> bool:
    return excuse.since <= _moment(event) <= excuse.until


def leaks(samples: Mapping[int, Sequence[int]]) -> list[str]:
    """Supervisors, by pid, whose number of open files grew from their first looks to their last."""
    return [
        f"supervisor {pid}: {first:g} open files at first, {last:g} at the end"
        for pid, first, last in _grown(samples)
        if last - first > FD_TOLERANCE
    ]


def _grown(samples: Mapping[int, Sequence[int]]) -> Iterator[tuple[int, float, float]]:
    for pid, counts in samples.items():
        if len(counts) >= 2 * _SAMPLES:
            yield pid, statistics.median(counts[:_SAMPLES]), statistics.median(counts[-_SAMPLES:])
