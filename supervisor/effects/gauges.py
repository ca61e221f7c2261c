"""CPU and memory of the workers, measured only when somebody looks: an idle fleet costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import psutil

from supervisor.effects.processes import age, start_ticks
from supervisor.snapshot import Measure

_MIB = 1024 * 1024


_SHORTEST_LOOK = 0.5
"""Seconds between two looks below which a share of CPU would be noise; the last one is told again."""


@dataclass(frozen=True, slots=True)
class _Look:
    process: psutil.Process
    spent: float  # CPU seconds until then
    at: float
    share: float


class Gauges:
    """A share of CPU is told between two looks; the first look tells the share since the process began."""

    def __init__(self) -> None:
        self._looks: dict[int, _Look] = {}

    def read(self, pids: Mapping[str, int], now: float) -> dict[str, Measure]:
        """name -> measure, for the processes that can be read. ``now``: monotonic seconds."""
        self._looks = {pid: look for pid, look in self._looks.items() if pid in pids.values()}
        return {name: self._measure(pid, now) for name, pid in pids.items()}

    def _measure(self, pid: int, now: float) -> Measure:
        try:
            look = self._look(pid, now)
            return Measure(round(look.share, 1), round(look.process.memory_full_info().pss / _MIB, 1))
        except psutil.Error:
            return Measure()

    def _look(self, pid: int, now: float) -> _Look:
        last = self._looks.get(pid)
        if last is not None and now - last.at < _SHORTEST_LOOK:
            return last
        process = last.process if last else psutil.Process(pid)
        spent = sum(process.cpu_times()[:2])
        since, before = (last.at, last.spent) if last else (now - age(start_ticks(pid) or 0), 0.0)
        share = 100.0 * (spent - before) / max(now - since, _SHORTEST_LOOK)
        self._looks[pid] = look = _Look(process, spent, now, share)
        return look
