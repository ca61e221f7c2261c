"""Decides whether a factory is running, late or offline. Pure: reads no clock and no database."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on two clocks. ``wall`` (POSIX seconds) is shown and stored. ``tick`` (seconds of the monotonic clock)
    decides, so that setting the wall clock neither makes a factory offline nor keeps it alive."""

    wall: float
    tick: float


class FactoryStatus(StrEnum):
    RUNNING = "running"
    LATE = "late"
    OFFLINE = "offline"


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Seconds of silence after which a factory is late, and after which it is offline.

    Raises ValueError unless ``0 < late_after <= offline_after``, both finite.
    """

    late_after: float = 45.0
    offline_after: float = 90.0

    def __post_init__(self) -> None:
        if not 0 < self.late_after <= self.offline_after < math.inf:
            both = f"{self.late_after:g} and {self.offline_after:g}"
            raise ValueError(f"late_after must be above 0 s and at most offline_after, both finite; they are {both}")


def judge(silence: float, thresholds: Thresholds) -> FactoryStatus:
    """The status of a factory after ``silence`` seconds without a heartbeat. Below 0 (the clock went back) is 0."""
    if silence >= thresholds.offline_after:
        return FactoryStatus.OFFLINE
    return FactoryStatus.LATE if silence >= thresholds.late_after else FactoryStatus.RUNNING


def worsens_after(status: FactoryStatus, thresholds: Thresholds) -> float | None:
    """The silence at which ``status`` gets worse; None when it cannot."""
    if status is FactoryStatus.RUNNING:
        return thresholds.late_after
    return thresholds.offline_after if status is FactoryStatus.LATE else None
