"""When the fleet as a whole counts as started, and the one line that says how it is. Pure.

A service manager waits for the first and shows the second (``systemctl status``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from supervisor.record import Wanted, WorkerRecord, WorkerState
from supervisor.spec import DASHBOARD_NAME, FleetConfig

_ORDER = (
    WorkerState.READY,
    WorkerState.STARTING,
    WorkerState.UNREADY,
    WorkerState.BACKOFF,
    WorkerState.QUARANTINED,
    WorkerState.STOPPING,
    WorkerState.DOWN,
)
_MOST_NAMED = 3
_LONGEST_REASON = 100
_MARGIN = 10.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """``due``: the start is over. ``wake_at``: when it will be over by time alone, None once it is."""

    due: bool
    text: str
    wake_at: float | None = None


def readiness(records: Mapping[str, WorkerRecord], since: float, now: float, limit: float) -> Readiness:
    """The start is over when every wanted worker is ready, or ``limit`` seconds after ``since``: one that cannot
    start must not hold up what waits for the fleet. All times are readings of the monotonic clock."""
    complete = all(record.state is WorkerState.READY for record in records.values() if record.wanted is Wanted.UP)
    due = complete or now >= since + limit
    return Readiness(due, summary(records), None if due else since + limit)


def start_limit(config: FleetConfig) -> float:
    """How long a start may keep others waiting: as long as its slowest datasite may take, and a little for the
    imports."""
    return max(spec.probes.start_timeout for spec in config.datasites) + _MARGIN


def summary(records: Mapping[str, WorkerRecord]) -> str:
    """``3 ready, 1 quarantined: detroit_line_beta (port 8081 is taken by pid 4711 (nginx))``."""
    datasites = [record for name, record in records.items() if name != DASHBOARD_NAME]
    counted = ", ".join(_counts(datasites)) or "no datasites"
    troubles = [_trouble(record) for record in records.values() if _is_trouble(record)]
    return f"{counted}: {_joined(troubles)}" if troubles else counted


def _counts(datasites: Iterable[WorkerRecord]) -> list[str]:
    states = [record.state for record in datasites]
    return [f"{states.count(state)} {state}" for state in _ORDER if state in states]


def _is_trouble(record: WorkerRecord) -> bool:
    return record.wanted is Wanted.UP and record.state is not WorkerState.READY


def _trouble(record: WorkerRecord) -> str:
    reason = record.reason
    short = reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"
    return f"{record.name} ({short})" if short else record.name


def _joined(troubles: list[str]) -> str:
    more = len(troubles) - _MOST_NAMED
    shown = ", ".join(troubles[:_MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
