"""CPU and memory of the workers, measured only when somebody looks: an idle fleet costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from fleet_common.signals import start_ticks
from supervisor.effects.processes import age
from supervisor.snapshot import Measure

_MIB = 1024 * 1024
_SHORTEST_LOOK = 0.5
"""Seconds between two looks below which a share of CPU is noise; the last one is used again."""
_MEMORY_LASTS = 5.0
"""Seconds for which a memory reading is used again: the kernel walks all page tables for it."""


@dataclass(frozen=True, slots=True)
class _Reading:
    process: psutil.Process
    spent: float  # CPU seconds until then
    at: float
    share: float
    memory: float = 0.0  # bytes
    memory_at: float = float("-inf")


class Gauges:
    """A share of CPU is that between two looks; the first look has the share since the process started. Any thread may
    read it.

    May be read from any thread.
    """

    def __init__(self) -> None:
        self._looks: dict[int, _Reading] = {}
        self._reading = threading.Lock()

    def read(self, pids: Mapping[str, int], now: float) -> dict[str, Measure]:
        """name -> measure, for the processes that can be read. ``now``: monotonic seconds."""
        with self._reading:
            self._looks = {pid: reading for pid, reading in self._looks.items() if pid in pids.values()}
            return {name: self._measure(pid, now) for name, pid in pids.items()}

    def _measure(self, pid: int, now: float) -> Measure:
        try:
            reading = _weighed(self._look(pid, now), now)
        except psutil.Error:
            return Measure()
        self._looks[pid] = reading
        return Measure(round(reading.share, 1), round(reading.memory / _MIB, 1))

    def _look(self, pid: int, now: float) -> _Reading:
        last = self._looks.get(pid)
        if last is not None and now - last.at < _SHORTEST_LOOK:
            return last
        process = last.process if last else psutil.Process(pid)
        spent = sum(process.cpu_times()[:2])
        since, before = (last.at, last.spent) if last else (now - age(start_ticks(pid) or 0), 0.0)
        share = 100.0 * (spent - before) / max(now - since, _SHORTEST_LOOK)
        return replace(last, spent=spent, at=now, share=share) if last else _Reading(process, spent, now, share)


def _weighed(reading: _Reading, now: float) -> _Reading:
    if now - reading.memory_at < _MEMORY_LASTS:
        return reading
    return replace(reading, memory=reading.process.memory_full_info().pss, memory_at=now)
