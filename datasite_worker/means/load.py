"""How busy the host and this datasite are: the ``current_load`` of heartbeat and status. Measures; decides nothing.

    cpu_usage          percent of all cores of the host, since the last measurement
    memory_usage       percent of the host's memory that is not available
    disk_usage         percent of the disk that the datasite works on
    network_latency    milliseconds of the last exchange with the dashboard; 0 before there was one

A measurement is reused for some seconds, so that a probe costs almost nothing.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, fields
from typing import Any

import psutil

from fleet_common.contract import StatusDocument

LASTS = 5.0
"""Seconds for which a measurement is reused."""
_WEIGHED_LASTS = 30.0
"""The same for the datasite's own memory: the kernel walks its page tables for it."""
_MIB = 1024 * 1024
_IDLE = ("idle", "iowait")


@dataclass(frozen=True, slots=True)
class LoadedStatus(StatusDocument):
    """What ``GET /factory.status`` answers: the status, and values that change too often for a pulse."""

    current_load: dict[str, float] = field(default_factory=dict)
    memory_mb: float | None = None  # of this datasite with all its processes: proportional set size, MiB


class HostLoad:
    """psutil's own ``cpu_percent`` counts per thread, and returns 0 at each thread's first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spent = _cpu_seconds()
        self._at = time.monotonic()
        self._figures: dict[str, float] | None = None

    def figures(self) -> dict[str, float]:
        """The host's part, at most ``LASTS`` seconds old. May be asked from any thread."""
        with self._lock:
            now = time.monotonic()
            if self._figures is None or now - self._at >= LASTS:
                before, self._spent, self._at = self._spent, _cpu_seconds(), now
                self._figures = {
                    "cpu_usage": _share(before, self._spent),
                    "memory_usage": float(psutil.virtual_memory().percent),
                    "disk_usage": _disk_usage(),
                }
            return dict(self._figures)


def _cpu_seconds() -> tuple[float, float]:
    """Busy and all CPU seconds of the host since it booted. Guests' are in user's already."""
    times = psutil.cpu_times()._asdict()
    every = sum(value for name, value in times.items() if not name.startswith("guest"))
    return every - sum(times.get(name, 0.0) for name in _IDLE), every


def _share(before: tuple[float, float], now: tuple[float, float]) -> float:
    """Percent; for a very short interval, the average since boot."""
    busy, every = now[0] - before[0], now[1] - before[1]
    if every <= 0:
        busy, every = now
    return round(min(100.0, max(0.0, 100.0 * busy / every)), 1)


def _disk_usage() -> float:
    """Usage of the datasite's disk; of the root's if its folder is gone."""
    try:
        return float(psutil.disk_usage(".").percent)
    except OSError:
        return float(psutil.disk_usage("/").percent)


_host: HostLoad | None = None


def begin() -> None:
    """Start measuring. A forked worker starts again, because its parent's measurement is old."""
    global _host  # noqa: PLW0603 - there is one host, and so one load
    _host = HostLoad()


def current_load(latency_ms: float) -> dict[str, float]:
    """The four figures, under the wire's names."""
    if _host is None:
        begin()
    return {**(_host.figures() if _host else {}), "network_latency": round(latency_ms, 1)}


class Weight:
    """This datasite's own memory, jobs included."""

    def __init__(self) -> None:
        self._at = float("-inf")
        self.memory_mb: float | None = None

    def look(self) -> None:
        """Measure the memory, unless that was done a short while ago."""
        now = time.monotonic()
        if now - self._at >= _WEIGHED_LASTS:
            self._at = now
            own = psutil.Process()
            self.memory_mb = round(sum(map(_pss, [own, *own.children(recursive=True)])) / _MIB, 1)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def loaded(status: StatusDocument, latency_ms: float, memory_mb: float | None) -> LoadedStatus:
    """``status`` with the load figures of this moment."""
    said: dict[str, Any] = {one.name: getattr(status, one.name) for one in fields(StatusDocument)}
    return LoadedStatus(**said, current_load=current_load(latency_ms), memory_mb=memory_mb)
