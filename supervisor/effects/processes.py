"""How old a process is, how it exited and why, and which dead children are left. Signals are ``fleet_common.signals``'
affair, and so is which process a pid means."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil

from fleet_common.signals import is_zombie
from supervisor.record import ExitCause, ExitKind


def age(created: int) -> float:
    """Seconds since a process with that start time began."""
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return max(0.0, uptime - created / os.sysconf("SC_CLK_TCK"))


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
