"""Whether a factory is running, late or offline: a pure decision. Reads no clock and no database."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Now:
    """One moment twice: ``wall`` (POSIX seconds) is shown and kept, ``tick`` (seconds of a clock that nobody sets)
    decides. So a clock that is set forwards makes no factory offline, and one that is set back keeps none alive."""

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
    """The status of a factory last heard ``silence`` seconds ago; below 0 (the clock went back) counts as now."""
    if silence >= thresholds.offline_after:
        return FactoryStatus.OFFLINE
    return FactoryStatus.LATE if silence >= thresholds.late_after else FactoryStatus.RUNNING


def worsens_after(status: FactoryStatus, thresholds: Thresholds) -> float | None:
    """The silence at which ``status`` is no longer right; None when it cannot get worse."""
    if status is FactoryStatus.RUNNING:
        return thresholds.late_after
    return thresholds.offline_after if status is FactoryStatus.LATE else None
