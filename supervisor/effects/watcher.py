"""Measures the memory and CPU of datasites that have limits, every ten seconds, in a thread of its own. Decides
nothing: what is near and what is reached, ``policy.limits`` says.

It never looks at a datasite without limits. In a control group the kernel says what a datasite uses; elsewhere it reads
/proc once for all datasites, and measures one exactly (its share of every page, which the kernel takes milliseconds
to find) only where its resident memory has grown enough for that to matter.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from fleet_common.contract import Limits
from fleet_common.signals import stat_fields
from supervisor.effects import clock
from supervisor.effects.board import Pinned
from supervisor.effects.cgroups import Cgroups, Usage
from supervisor.facts import Load, LoadSeen
from supervisor.history import Event
from supervisor.policy import launching, limits
from supervisor.record import Pressure, WorkerRecord
from supervisor.spec import DatasiteSpec, FleetConfig

log = logging.getLogger("fleet")

_EXACT_AGAIN = 60.0
"""Seconds after which a datasite is measured exactly in any case: it may no longer share its pages."""
_HELD_BACK = 0.05
"""A datasite is at its CPU limit when the kernel throttled it for this share of the time since the last look."""
_AT_CPU = 0.95
"""The same share of the limit where only the number of cores bounds CPU."""
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
    """The last look at one datasite, or at all together. ``exact`` of its memory was found when ``resident`` of it were
    resident."""

    pid: int
    at: float
    memory: int = 0
    cpu_s: float = 0.0
    cpu: float = 0.0
    held_back_s: float = 0.0
    oom_kills: int = 0
    oom_limit: str = ""
    kernel: bool = False
    exact: int = 0
    resident: int = 0
    exact_at: float = float("-inf")
    memory_looks: int = 0
    cpu_looks: int = 0
    cpu_calm: int = 0


@dataclass(slots=True)
class _Look:
    """What one look needs to know. It reads the processes when they are first needed."""

    now: float
    config: FleetConfig
    host: Limits
    heard: frozenset[str] = frozenset()  # datasites that sent a status, and so have joined their groups if they could
    processes: Mapping[int, _Process] = field(default_factory=dict)
    children: dict[int, list[int]] = field(default_factory=dict)

    def tree(self, pid: int) -> Iterator[int]:
        """``pid`` and all processes below it; a worker is the subreaper of its descendants, so none escapes."""
        if not self.processes:
            self.processes = _processes()
            for child, process in self.processes.items():
                self.children.setdefault(process.parent, []).append(child)
        waiting = [pid] if pid in self.processes else []
        while waiting:
            yield (one := waiting.pop())
            waiting += self.children.get(one, [])


class Watcher:
    """``read`` gives the state of the fleet; ``post`` takes facts, and events about all datasites together.

    ``host``: the limits of the host that they are near, or have reached. Other threads may read it.
    """

    def __init__(
        self,
        read: Callable[[], Pinned],
        cgroups: Cgroups,
        post: Callable[[LoadSeen | Event], None],
        period: float = limits.PERIOD,
    ) -> None:
        self._read = read
        self._cgroups = cgroups
        self._post = post
        self._period = period
        self._seen: dict[str, _Seen] = {}
        self._all = _Seen(0, 0.0)
        self.host = Pressure()
        self._held: dict[str, int] = {}  # datasites that had a limit at the last look, with their pid
        self._outside: set[int] = set()  # pids whose limits the kernel does not enforce, though it should
        self._allowed = sorted(os.sched_getaffinity(0))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(self._period):
            try:
                pinned = self._read()
                self.look(pinned.config, pinned.records, clock.monotonic())
            except Exception:
                if self._over.is_set():
                    return  # nobody takes our facts any more
                log.exception("measuring the datasites failed; trying again in %g s", self._period)

    def close(self) -> None:
        self._over.set()
        self._thread.join(_CLOSING)

    def look(self, config: FleetConfig, records: Mapping[str, WorkerRecord], now: float) -> None:
        """Look once at every datasite that has a limit, or had one at the last look; post a fact for each that is
        near."""
        running = [
            (spec, record)
            for spec in config.datasites
            if (record := records.get(spec.name)) is not None
            and record.pid is not None
            and (_limited(spec, config) or self._held.get(spec.name) == record.pid or record.pressure != Pressure())
        ]
        heard = frozenset(spec.name for spec, record in running if record.status is not None)
        look = _Look(now, config, launching.host_limits(config), heard)
        loads = {spec.name: self._load(spec, record.pid or 0, look) for spec, record in running}
        self._seen = {name: seen for name, seen in self._seen.items() if name in loads}
        self._held = {spec.name: record.pid or 0 for spec, record in running if _limited(spec, config)}
        self._outside &= {record.pid or 0 for _, record in running}
        for spec, record in running:
            if limits.is_worth_telling(record.pressure, loads[spec.name]):
                self._post(LoadSeen(spec.name, record.generation, loads[spec.name]))
        self._look_at_all(look, loads, {spec.name: record.generation for spec, record in running})

    # --- one datasite ---

    def _load(self, spec: DatasiteSpec, pid: int, look: _Look) -> Load:
        self._bind_all(spec, pid, look)
        own = launching.limits_of(look.config, spec)
        before = self._seen.get(spec.name)
        before = before if before is not None and before.pid == pid else _Seen(pid, look.now)
        seen = self._by_kernel(spec.name, before, look.now) or self._by_hand(before, look, own.memory)
        seen = _counted(before, seen, own.memory, own.cpu_percent)
        self._seen[spec.name] = seen
        enforced = self._cgroups.held_of(spec.name, pid)
        kills = max(0, seen.oom_kills - before.oom_kills) if before.kernel else 0
        load = _loaded(seen, own.memory, own.cpu_percent, kernel=seen.kernel and "memory" in enforced)
        load = replace(load, cpu_kernel=seen.kernel and "cpu" in enforced)
        return replace(load, oom_kills=kills, oom_limit=seen.oom_limit if kills else "")

    def _by_kernel(self, name: str, before: _Seen, now: float) -> _Seen | None:
        usage = self._cgroups.usage(name, before.pid)
        return None if usage is None else _of_kernel(before, usage, now)

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
        """Measures exactly, unless it did so a short while ago and the memory has hardly grown since."""
        if seen.exact and at_most < 1.02 * seen.exact and seen.at - seen.exact_at <= _EXACT_AGAIN:
            return replace(seen, memory=at_most)
        exact = sum(map(_pss, tree))
        return replace(seen, memory=exact, exact=exact, resident=resident, exact_at=seen.at)

    # --- all datasites together ---

    def _look_at_all(self, look: _Look, loads: Mapping[str, Load], generations: Mapping[str, int]) -> None:
        """Events about the host's limits name the fleet. If the kernel does not enforce memory, the largest datasite
        must restart."""
        if not (look.host.memory or look.host.cpu_percent or self.host != Pressure()):
            return
        self._all = _counted(self._all, self._sum(look.now, loads), look.host.memory, look.host.cpu_percent)
        kernel = self._all.kernel and "memory" in self._cgroups.held and all(load.kernel for load in loads.values())
        load = _loaded(self._all, look.host.memory, look.host.cpu_percent, kernel=kernel)
        load = replace(load, of_host=True, cpu_kernel=self._all.kernel and "cpu" in self._cgroups.held)
        before, self.host = self.host, limits.pressure(self.host, load)
        for event in limits.of_all(before, self.host):
            self._post(event)
        biggest = max(loads, key=lambda name: loads[name].memory, default="")
        if (
            biggest and limits.why_end(load) and not limits.why_end(loads[biggest])
        ):  # else it restarts for its own limit
            self._post(LoadSeen(biggest, generations[biggest], load))
            self._all = replace(self._all, memory_looks=0)  # the next one has as much time

    def _sum(self, now: float, loads: Mapping[str, Load]) -> _Seen:
        """The kernel's figures, which include the dashboard, if there are some; at least the sum of the datasites."""
        usage = self._cgroups.usage_of_all()
        seen = (
            _of_kernel(self._all, usage, now) if usage else replace(self._all, at=now, memory=0, cpu=0.0, kernel=False)
        )
        memory, cpu = (sum(load.memory for load in loads.values()), sum(load.cpu for load in loads.values()))
        return replace(seen, memory=max(seen.memory, memory), cpu=max(seen.cpu, cpu))

    # --- cores, where no control group holds CPU ---

    def give_cores(self, spec: DatasiteSpec, pid: int, config: FleetConfig) -> None:
        """Bind a datasite to as many cores as its CPU limit rounds up to; its later children inherit them. Does not
        bind one that is about to join its control group: a later look sees whether it did."""
        if not self._cgroups.holds("cpu"):
            self._bind_all(spec, pid, _Look(0.0, config, launching.host_limits(config)))

    def _bind_all(self, spec: DatasiteSpec, pid: int, look: _Look) -> None:
        """Checks each process: it may have been forked just before, or user code may have changed its cores."""
        wanted = frozenset(self._allowed) if self._kernel_has_cpu(spec.name, pid, look) else self._cores(spec, look)
        if wanted == frozenset(self._allowed) == _cores_of(pid):
            return
        for one in look.tree(pid):
            if _cores_of(one) != wanted:
                _bind(one, wanted)

    def _cores(self, spec: DatasiteSpec, look: _Look) -> frozenset[int]:
        everybodys = sorted(limits.cores_for(look.config.name, look.host.cpu_percent, self._allowed))
        return limits.cores_for(spec.name, launching.limits_of(look.config, spec).cpu_percent, everybodys)

    def _kernel_has_cpu(self, name: str, pid: int, look: _Look) -> bool:
        if not self._cgroups.holds("cpu"):
            return False
        enforced = name not in look.heard or "cpu" in self._cgroups.held_of(name, pid) & self._cgroups.held
        if not enforced and pid not in self._outside:
            self._outside.add(pid)
            log.warning("%s: the kernel does not enforce the limits of pid %d; the supervisor watches them", name, pid)
        return enforced


def _limited(spec: DatasiteSpec, config: FleetConfig) -> bool:
    own, host = launching.limits_of(config, spec), launching.host_limits(config)
    return bool(own.memory or own.cpu_percent or host.memory or host.cpu_percent)


def _share(before: _Seen, cpu_s: float, now: float) -> float:
    """Percent of one core since the last look."""
    return max(0.0, 100.0 * (cpu_s - before.cpu_s) / (now - before.at)) if now > before.at else 0.0


def _of_kernel(before: _Seen, usage: Usage, now: float) -> _Seen:
    share = _share(before, usage.cpu_s, now) if before.kernel else 0.0
    return replace(
        before,
        at=now,
        memory=usage.memory,
        cpu_s=usage.cpu_s,
        cpu=share,
        held_back_s=usage.held_back_s,
        oom_kills=usage.oom_kills,
        oom_limit=usage.oom_limit,
        kernel=True,
    )


def _counted(before: _Seen, seen: _Seen, memory: int, cpu: float) -> _Seen:
    """``seen``, with the number of looks in a row at its limits."""
    throttled = seen.held_back_s - before.held_back_s >= _HELD_BACK * max(seen.at - before.at, 1e-9) and before.kernel
    at_memory = bool(memory) and seen.memory >= memory
    at_cpu = bool(cpu) and ((seen.kernel and throttled and seen.at > before.at) or seen.cpu >= _AT_CPU * cpu)
    looks, calm = limits.cpu_looks(before.cpu_looks, before.cpu_calm, at_limit=at_cpu)
    memory_looks = before.memory_looks + 1 if at_memory else 0
    return replace(seen, memory_looks=memory_looks, cpu_looks=looks if cpu else 0, cpu_calm=calm)


def _loaded(seen: _Seen, memory: int, cpu: float, *, kernel: bool) -> Load:
    return Load(
        memory=seen.memory,
        memory_limit=memory,
        memory_looks=seen.memory_looks,
        cpu=seen.cpu,
        cpu_limit=cpu,
        cpu_looks=seen.cpu_looks,
        cpu_calm=seen.cpu_calm,
        kernel=kernel,
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
    """Every process of this machine, read directly: psutil's own walk takes ten times as long."""
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
