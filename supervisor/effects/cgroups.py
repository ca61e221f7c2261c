"""Control groups, if a service manager has delegated ours to us: one for each datasite. Its kill reaches every process
of the datasite, and the kernel enforces the memory and CPU limits in it. Decides nothing.

    <the unit's group>/supervisor          ourselves and the forkserver: cgroup v2 wants no process in an inner group
                      /lines               the limits of all datasites together
                            /line-NAME     one datasite, with all its processes

Without a delegated cgroup v2 nothing happens here: process groups and leashes do the work, and the supervisor watches
the limits. Controllers are switched on only if the unit can start again: a service manager that puts the main process
straight into the unit's own group fails while that group has them. systemd 254 and later put it into our leaf; for
earlier versions ``FREES`` says that the unit switches them off whenever the supervisor has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

log = logging.getLogger("fleet")

LEAF = "supervisor"
LINES = "lines"
FREES = "FLEET_UNIT_FREES_CGROUP"
_CONTROLLERS = ("memory", "cpu")
_FILES = {"memory": "memory.max", "cpu": "cpu.max"}
_SWAP = "memory.swap.max"
_MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_MARKS = ("trusted.delegate", "user.delegate")
"""systemd sets these extended attributes on a group that it has delegated (systemd.resource-control(5))."""
_CPU_PERIOD = 100_000  # microseconds; the kernel's own default
_LEAST_QUOTA = 1000  # and the least that it takes
_JUST_NOW = 5.0
_NO_LIMIT = "max"


@dataclass(frozen=True, slots=True)
class Usage:
    """``memory``: bytes that cannot simply be dropped. ``cpu_s``: CPU seconds in all. ``held_back_s``: for how long the
    kernel throttled it for its CPU limit. ``oom_limit``: the limit that the last of ``oom_kills`` was for."""

    memory: int
    cpu_s: float
    held_back_s: float
    oom_kills: int = 0
    oom_limit: str = ""


@dataclass(frozen=True, slots=True)
class _Ooms:
    """What the kernel has counted for a datasite: processes it killed, and how often its own limit and the host's were
    hit. When it last killed one, and for which limit. ``base``: the counts of the two limits at the look before: the
    kernel counts a hit a moment before it kills."""

    kills: int
    own: int
    hosts: int
    base: tuple[int, int] = (0, 0)
    rose: float = float("-inf")
    limit: str = ""


class Cgroups:
    """``own``: the folder of the delegated group; None: there is none. ``safe``: controllers may be switched on."""

    def __init__(self, own: Path | None, *, safe: bool = False) -> None:
        self._own = own
        self._ooms: dict[str, _Ooms] = {}  # as last looked at
        self._refused: set[Path] = set()  # limits that the kernel did not take
        self._lines = _prepared(own) if own is not None else None
        self._controllers = _switched_on(own, self._lines) if safe and own and self._lines else frozenset[str]()
        if own is not None:
            log.info("control groups: %s", self.words)

    @classmethod
    def find(cls, environ: Mapping[str, str]) -> Cgroups:
        """The group that was delegated to us, if there is one and it can be written."""
        group = _own_group()
        if group is not None and group.name == LEAF and _is_delegated(group.parent):
            return cls(group.parent, safe=True)
        if group is not None and _is_delegated(group):
            return cls(group, safe=FREES in environ)
        return cls(None)

    @property
    def words(self) -> str:
        """For people: which limits the kernel enforces."""
        if self._own is None:
            return "none was delegated; the supervisor watches memory and CPU limits"
        if not self._controllers:
            return f"{self._own}, without controllers; the supervisor watches memory and CPU limits"
        return f"{self._own}; the kernel enforces limits of {' and '.join(sorted(self._controllers))}"

    def holds(self, controller: str) -> bool:
        """Whether the kernel enforces limits of ``memory`` or ``cpu``."""
        return controller in self._controllers

    @property
    def held(self) -> frozenset[str]:
        """Which limits of all datasites together it enforces."""
        return self._taken(self._lines) if self._lines is not None else frozenset()

    def held_of(self, name: str, pid: int) -> frozenset[str]:
        """Which limits it really enforces for that process: none if the process could not join its group."""
        if self._lines is None or not self._controllers:
            return frozenset()
        folder = self._folder(name)
        return self._taken(folder) if str(pid) in _words(folder / "cgroup.procs") else frozenset()

    def held_otherwise(self, pids: Mapping[str, int]) -> dict[str, frozenset[str]]:
        """The limits enforced for those processes that do not have all of ``held``."""
        found = {name: self.held_of(name, pid) & self.held for name, pid in pids.items()} if self.held else {}
        return {name: held for name, held in found.items() if held != self.held}

    def _taken(self, folder: Path) -> frozenset[str]:
        return frozenset(one for one in self._controllers if folder / _FILES[one] not in self._refused)

    def make(self, name: str) -> str:
        """The group of that datasite, created if absent; empty when there is none."""
        if self._lines is None:
            return ""
        folder = self._folder(name)
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            return ""
        self._ooms[name] = self._counted(folder)
        return str(folder)

    def limit(self, name: str, memory: int, cpu_percent: float) -> None:
        """Set the limits of that datasite; 0 is no limit. May be called at any time, also while it runs."""
        if self._lines is not None:
            self._set(self._folder(name), memory, cpu_percent)

    def limit_all(self, memory: int, cpu_percent: float) -> None:
        """Set the limits of all datasites together."""
        if self._lines is not None:
            self._set(self._lines, memory, cpu_percent)

    def _set(self, folder: Path, memory: int, cpu_percent: float) -> None:
        quota = max(_LEAST_QUOTA, round(cpu_percent / 100 * _CPU_PERIOD)) if cpu_percent else _NO_LIMIT
        wanted = {"memory": str(memory or _NO_LIMIT), "cpu": f"{quota} {_CPU_PERIOD}"}
        for controller in self._controllers:
            self._write(folder / _FILES[controller], wanted[controller])
        # With swap, a datasite would go on growing, on the disk that all share.
        if self.holds("memory") and (folder / _SWAP).exists():
            try:
                (folder / _SWAP).write_text("0" if memory else _NO_LIMIT)
            except OSError as error:
                log.debug("%s: swap is not limited: %s", folder, error.strerror)

    def _write(self, file: Path, value: str) -> None:
        self._refused.discard(file)
        try:
            file.write_text(value)
        except FileNotFoundError:
            return  # not created yet; it gets its limit then
        except OSError as error:
            self._refused.add(file)
            log.error("cannot set %s to %s (%s); the supervisor watches this limit", file, value, error.strerror)

    def usage(self, name: str, pid: int) -> Usage | None:
        """What that datasite uses; None when there is no group, it has no memory controller, or the process is not in
        it."""
        folder = self._folder(name) if self._lines is not None else None
        if folder is None or not self.holds("memory"):
            return None
        try:
            if str(pid) not in (folder / "cgroup.procs").read_text().split():
                return None
            ooms = self._look_for_ooms(name, folder)
            return replace(_usage(folder), oom_kills=ooms.kills, oom_limit=ooms.limit)
        except (OSError, ValueError):
            return None

    def usage_of_all(self) -> Usage | None:
        """What all datasites and the dashboard use together; None if their group does not tell."""
        if self._lines is None or not self.holds("memory"):
            return None
        try:
            return _usage(self._lines)
        except (OSError, ValueError):
            return None

    def _look_for_ooms(self, name: str, folder: Path) -> _Ooms:
        now = self._counted(folder)
        before = self._ooms.get(name, now)
        if now.kills > before.kills:
            now = replace(now, rose=time.monotonic(), limit=self._limit_of(folder, before.base, now))
        else:
            now = replace(before, own=now.own, hosts=now.hosts, base=(before.own, before.hosts))
        self._ooms[name] = now
        return now

    def _counted(self, folder: Path) -> _Ooms:
        hosts = _count(self._lines / "memory.events.local", "oom") if self._lines is not None else 0
        events = folder / "memory.events"
        own = _count(events, "oom")
        return _Ooms(_count(events, "oom_kill"), own, hosts, base=(own, hosts))

    def _limit_of(self, folder: Path, before: tuple[int, int], now: _Ooms) -> str:
        own, hosts = before
        if now.own > own:
            return f"its limit of {_gb(folder)} GB (max_memory_usage_gb)"
        if now.hosts > hosts and self._lines is not None:
            return f"the host's limit of {_gb(self._lines)} GB for all datasites (host: max_memory_usage_gb)"
        return "the machine has no free memory"

    def out_of_memory(self, name: str) -> str:
        """For which limit the kernel has just killed a process of that datasite; empty: none. Call it before
        ``end``."""
        folder = self._folder(name) if self._lines is not None else None
        if folder is None or not self.holds("memory"):
            return ""
        ooms = self._look_for_ooms(name, folder)
        return ooms.limit if time.monotonic() - ooms.rose <= _JUST_NOW else ""

    def end(self, name: str) -> None:
        """Kill what is left in the datasite's group, and remove it."""
        if self._lines is None:
            return
        folder = self._folder(name)
        try:
            (folder / "cgroup.kill").write_text("1")
            folder.rmdir()
        except OSError:
            return  # never created, or its processes are still ending: the next datasite of that name uses it again

    def _folder(self, name: str) -> Path:
        return (self._lines or Path()) / f"line-{name}"


def _prepared(own: Path) -> Path | None:
    """The group of all datasites; None when it cannot be created."""
    try:
        (own / LINES).mkdir(exist_ok=True)
    except OSError as error:
        log.warning("%s: cannot create groups for datasites: %s", own, error.strerror)
        return None
    return own / LINES


def _switched_on(own: Path, lines: Path) -> frozenset[str]:
    """The controllers that datasites have now. Processes that are still in ``own`` move to the leaf first."""
    _move_to_leaf(own)
    for folder in (own, lines):
        for controller in _CONTROLLERS:
            with contextlib.suppress(OSError):  # this machine does not have it, or not for us
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    had = _words(lines / "cgroup.subtree_control")
    if missing := [controller for controller in _CONTROLLERS if controller not in had]:
        log.warning(
            "%s: the kernel does not enforce %s limits; the supervisor watches them", own, " and ".join(missing)
        )
    return frozenset(had) & frozenset(_CONTROLLERS)


def _move_to_leaf(own: Path) -> None:
    try:
        (own / LEAF).mkdir(exist_ok=True)
        for pid in _words(own / "cgroup.procs"):
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                (own / LEAF / "cgroup.procs").write_text(pid)
    except OSError as error:
        log.warning("%s: cannot move its processes to %s: %s", own, LEAF, error.strerror)


def _usage(folder: Path) -> Usage:
    """Without cache that the kernel may drop: with it, every datasite would reach its limit in time."""
    current = int((folder / "memory.current").read_text())
    cache = _count(folder / "memory.stat", "inactive_file")
    cpu_s = _count(folder / "cpu.stat", "usage_usec") / 1e6
    return Usage(max(0, current - cache), cpu_s, _count(folder / "cpu.stat", "throttled_usec") / 1e6)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _count(file: Path, key: str) -> int:
    """The number behind ``key`` in a file of such lines; 0 when there is none."""
    try:
        found = re.search(rf"^{key} (\d+)$", file.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _gb(folder: Path) -> str:
    limit = (_words(folder / "memory.max") or ["?"])[0]
    return f"{int(limit) / 1e9:.3g}" if limit.isdigit() else "?"


def _own_group() -> Path | None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    mount = next((mount for mount in _MOUNTS if (mount / "cgroup.procs").exists()), None)
    if path is None or mount is None:
        return None
    return mount / path


def _is_delegated(group: Path) -> bool:
    return any(_attribute(group, mark) == b"1" for mark in _MARKS) and os.access(group, os.W_OK)


def _attribute(group: Path, name: str) -> bytes:
    try:
        return os.getxattr(group, name)
    except OSError:
        return b""
