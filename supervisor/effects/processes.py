"""Processes as the kernel sees them: identity, signals to a group, exit and cause.

Pid and start time together identify a process; a pid alone does not, because the kernel uses it again.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from supervisor.record import ExitCause, ExitKind


def start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (field 22 of proc(5) stat); None when there is none."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def is_zombie(pid: int) -> bool:
    return (fields := stat_fields(pid)) is not None and fields[0] in _DEAD


def lives_since(pid: int, ticks: int) -> bool:
    """Whether the process exists, is no zombie, and started at ``ticks`` or later."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in _DEAD and int(fields[19]) >= ticks


_DEAD = (b"Z", b"X")


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields of proc(5) stat from the third, the state, on. Read plainly: a sweep asks it of every process."""
    try:
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(stat, 4096)
    except OSError:
        return None  # gone between the two
    finally:
        os.close(stat)
    return raw[raw.rindex(b")") + 2 :].split() if b")" in raw else None


def is_same(pid: int, created: int) -> bool:
    """Whether ``pid`` still is the living process that began at ``created``."""
    return start_ticks(pid) == created and not is_zombie(pid)


def age(created: int) -> float:
    """Seconds since a process with that start time began."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, uptime - created / os.sysconf("SC_CLK_TCK"))


def signal_group(pid: int, number: signal.Signals) -> None:
    """Signal the worker's process group; only the worker, if it has no group of its own yet."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        _signal_alone(pid, number)


def _signal_alone(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def sweep_group(pid: int) -> None:
    """SIGKILL all that a dead worker left in its process group: nothing may hold its port or its database."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def cause_of_code(code: int | None) -> ExitCause:
    """The cause behind an exit code as ``multiprocessing`` and ``subprocess`` give it: negative is a signal."""
    if code is None:
        return ExitCause(ExitKind.UNKNOWN, "exit status unknown: no supervisor was running")
    if code < 0:
        return ExitCause(ExitKind.SIGNAL, _signal_name(-code), code, _signal_name(-code))
    if code == 0:
        return ExitCause(ExitKind.CLEAN, "exit code 0", code)
    return ExitCause(ExitKind.FAILURE, f"exit code {code}", code)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def reap(pid: int) -> int | None:
    """The exit code of our own dead child; None when it is not ours to reap."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if done else None


def reap_strays(kept: set[int]) -> None:
    """Reap dead children that came to us as orphans; ``kept`` are others' to reap."""
    for child in psutil.Process().children():
        if child.pid not in kept and is_zombie(child.pid):
            reap(child.pid)
