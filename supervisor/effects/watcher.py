"""Looks at what lines with limits take of memory and CPU, every ten seconds, in a thread of its own. Decides nothing.

A line without limits is never looked at. By a control group the kernel says what a line takes; elsewhere all of /proc
is read once for all lines, and a line is weighed exactly (its share of every page, which the kernel takes milliseconds
to find) only where its resident memory has grown enough for that to matter.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from datasite_worker.contract import Limits
from supervisor.effects import clock
from supervisor.effects.board import Pinned
from supervisor.effects.cgroups import Cgroups
from supervisor.effects.processes import stat_fields
from supervisor.facts import Load, LoadSeen
from supervisor.policy import launching, limits
from supervisor.record import WorkerRecord
from supervisor.spec import DatasiteSpec, FleetConfig

_EXACT_AGAIN = 60.0
"""Seconds after which a line is weighed exactly in any case: pages that it shared may have become its own."""
_HELD_BACK = 0.05
"""The share of a look's time that the kernel held a line back, from which on it counts as at its CPU limit."""
_AT_CPU = 0.95
"""And the share of the limit where cores alone bound it."""
_CLOSING = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_s: float  # with that of its ended children
    resident: int


@dataclass(frozen=True, slots=True)
class _Seen:
    """The last look at one line. ``exact`` of its memory was found when ``resident`` of it were resident."""

    pid: int
    at: float
    memory: int = 0
    cpu_s: float = 0.0
    cpu: float = 0.0
    held_back_s: float = 0.0
    oom_kills: int = 0
    kernel: bool = False
    exact: int = 0
    resident: int = 0
    exact_at: float = float("-inf")
    memory_looks: int = 0
    cpu_looks: int = 0


@dataclass(slots=True)
class _Look:
    """What one look needs to know of everybody. Processes are read when first asked for."""

    now: float
    config: FleetConfig
    host: Limits
    processes: Mapping[int, _Process] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)

    def tree(self, pid: int) -> Iterator[int]:
        """``pid`` and all below it; a worker is its descendants' subreaper, so none escapes."""
        if not self.processes:
            self.processes = _processes()
            for child, process in self.processes.items():
                self.children.setdefault(process.parent, []).append(child)
        waiting = [pid] if pid in self.processes else []
        while waiting:
            yield (one := waiting.pop())
            waiting += self.children.get(one, [])


class Watcher:
    """``read`` gives the fleet as it is pinned; ``post`` takes facts."""

    def __init__(
        self,
        read: Callable[[], Pinned],
        cgroups: Cgroups,
        post: Callable[[LoadSeen], None],
        period: float = limits.PERIOD,
    ) -> None:
        self._read = read
        self._cgroups = cgroups
        self._post = post
        self._period = period
        self._seen: dict[str, _Seen] = {}
        self._told: set[str] = set()  # lines of which the last word was that something is near its limit
        self._host_looks = 0
        self._allowed = sorted(os.sched_getaffinity(0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._period):
            pinned = self._read()
            self.look(pinned.config, pinned.records, clock.monotonic())

    def close(self) -> None:
        self._over.set()
        self._thread.join(_CLOSING)

    def look(self, config: FleetConfig, records: Mapping[str, WorkerRecord], now: float) -> None:
        """One look at every line that has a limit, and one word about each that is near it."""
        running = {
            spec: record
            for spec in config.datasites
            if (record := records.get(spec.name)) is not None and record.pid is not None and _limited(spec, config)
        }
        look = _Look(now, config, launching.host_limits(config))
        loads = {spec.name: self._load(spec, record.pid or 0, look) for spec, record in running.items()}
        self._seen = {name: seen for name, seen in self._seen.items() if name in loads}
        self._weigh_all(look.host, loads)
        for spec, record in running.items():
            self._tell(spec.name, record.generation, loads[spec.name])

    def _tell(self, name: str, generation: int, load: Load) -> None:
        worth = limits.is_worth_telling(load)
        if worth or name in self._told:
            self._post(LoadSeen(name, generation, load))
        (self._told.add if worth else self._told.discard)(name)

    # --- one line ---

    def _load(self, spec: DatasiteSpec, pid: int, look: _Look) -> Load:
        self._bind_all(spec, pid, look)
        asked = launching.limits_of(look.config, spec)
        before = self._seen.get(spec.name)
        before = before if before is not None and before.pid == pid else _Seen(pid, look.now)
        seen = self._by_kernel(spec.name, before, look.now) or self._by_hand(before, look, asked.memory)
        seen = _counted(before, seen, asked.memory, asked.cpu_percent)
        self._seen[spec.name] = seen
        kills = seen.oom_kills - before.oom_kills if before.kernel else 0
        kernel = seen.kernel and self._cgroups.holds("memory")
        return Load(
            seen.memory,
            asked.memory,
            seen.memory_looks,
            seen.cpu,
            asked.cpu_percent,
            seen.cpu_looks,
            kernel=kernel,
            oom_kills=max(0, kills),
        )

    def _by_kernel(self, name: str, before: _Seen, now: float) -> _Seen | None:
        usage = self._cgroups.usage(name, before.pid)
        if usage is None:
            return None
        share = _share(before, usage.cpu_s, now) if before.kernel else 0.0
        seen = _Seen(before.pid, now, usage.memory, usage.cpu_s, share, usage.held_back_s, usage.oom_kills, kernel=True)
        return replace(seen, memory_looks=before.memory_looks, cpu_looks=before.cpu_looks)

    def _by_hand(self, before: _Seen, look: _Look, limit: int) -> _Seen:
        tree = list(look.tree(before.pid))
        resident = sum(look.processes[pid].resident for pid in tree)
        cpu_s = sum(look.processes[pid].cpu_s for pid in tree)
        at_most = before.exact + max(0, resident - before.resident) if before.exact else resident
        share = _share(before, cpu_s, look.now) if before.cpu_s else 0.0
        seen = replace(before, at=look.now, memory=at_most, cpu_s=cpu_s, cpu=share, kernel=False)
        matters = limit and at_most >= limits.CLEAR * limit
        if matters or (before.exact and look.now - before.exact_at > _EXACT_AGAIN) or look.host.memory:
            return self._exactly(seen, tree, resident, at_most)
        return seen

    def _exactly(self, seen: _Seen, tree: Collection[int], resident: int, at_most: int) -> _Seen:
        """Exact unless it was a short while ago and has hardly grown since."""
        if seen.exact and at_most < 1.02 * seen.exact and seen.at - seen.exact_at <= _EXACT_AGAIN:
            return replace(seen, memory=at_most)
        exact = sum(map(_pss, tree))
        return replace(seen, memory=exact, exact=exact, resident=resident, exact_at=seen.at)

    # --- all lines together ---

    def _weigh_all(self, host: Limits, loads: dict[str, Load]) -> None:
        """Where all together take too much, the biggest is told so instead of what it takes itself."""
        total = sum(load.memory for load in loads.values())
        self._host_looks = self._host_looks + 1 if host.memory and total >= host.memory else 0
        if not host.memory or not loads or total < limits.CLEAR * host.memory:
            return
        biggest = max(loads, key=lambda name: loads[name].memory)
        mine = loads[biggest]
        if limits.why_end(mine):
            return  # it goes for its own limit
        loads[biggest] = replace(
            mine, memory=total, memory_limit=host.memory, memory_looks=self._host_looks, of_host=True
        )

    # --- cores, where no control group holds CPU ---

    def give_cores(self, spec: DatasiteSpec, pid: int, config: FleetConfig) -> None:
        """Bind a line to as many cores as its CPU limit rounds up to; what it starts from then on inherits them."""
        self._bind_all(spec, pid, _Look(0.0, config, launching.host_limits(config)))

    def _bind_all(self, spec: DatasiteSpec, pid: int, look: _Look) -> None:
        """Each process is looked at: one may have been forked just before, or user code may have freed its own."""
        if self._cgroups.holds("cpu"):
            return
        everybodys = sorted(limits.cores_for(look.config.name, look.host.cpu_percent, self._allowed))
        wanted = limits.cores_for(spec.name, launching.limits_of(look.config, spec).cpu_percent, everybodys)
        if wanted == frozenset(self._allowed) == _cores_of(pid):
            return
        for one in look.tree(pid):
            if _cores_of(one) != wanted:
                _bind(one, wanted)


def _limited(spec: DatasiteSpec, config: FleetConfig) -> bool:
    own, host = launching.limits_of(config, spec), launching.host_limits(config)
    return bool(own.memory or own.cpu_percent or host.memory or host.cpu_percent)


def _share(before: _Seen, cpu_s: float, now: float) -> float:
    """Percent of one core since the last look."""
    return max(0.0, 100.0 * (cpu_s - before.cpu_s) / (now - before.at)) if now > before.at else 0.0


def _counted(before: _Seen, seen: _Seen, memory: int, cpu: float) -> _Seen:
    """``seen``, with how many looks in a row it has been at its limits by now."""
    held = seen.held_back_s - before.held_back_s >= _HELD_BACK * max(seen.at - before.at, 1e-9) and before.kernel
    at_memory = bool(memory) and seen.memory >= memory
    at_cpu = bool(cpu) and ((seen.kernel and held and seen.at > before.at) or seen.cpu >= _AT_CPU * cpu)
    return replace(
        seen,
        memory_looks=before.memory_looks + 1 if at_memory else 0,
        cpu_looks=before.cpu_looks + 1 if at_cpu else 0,
    )


def _cores_of(pid: int) -> frozenset[int]:
    try:
        return frozenset(os.sched_getaffinity(pid))
    except ProcessLookupError:
        return frozenset()


def _bind(pid: int, cores: frozenset[int]) -> None:
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)


def _pss(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0


def _processes() -> dict[int, _Process]:
    """Every process of this machine, read plainly: a library's own walk takes ten times as long."""
    found = {}
    for pid in psutil.pids():
        if (process := _process(pid)) is not None:
            found[pid] = process
    return found


def _process(pid: int) -> _Process | None:
    fields = stat_fields(pid)  # from the third of proc(5) on
    if fields is None:
        return None
    spent = sum(map(int, fields[11:15])) / _TICKS
    return _Process(int(fields[1]), spent, int(fields[21]) * _PAGE)
