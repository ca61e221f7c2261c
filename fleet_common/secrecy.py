"""Protects a process's memory: no core files, and no access from other processes.

Standard library only; for supervisor and workers. Changes only this process and what it will start. It does
not prevent user code from reading what its own user can read: see docs/security.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
from collections.abc import Collection
from pathlib import Path

_PR_SET_DUMPABLE = 4  # linux/prctl.h
_CAP_SYS_PTRACE = 19  # linux/capability.h
_ENV_START = 47  # proc(5) stat, field 50, counted from the third


def leave_no_core() -> None:
    """Disable core files of this process and all that it starts, permanently. A program that receives core files from
    the kernel (core_pattern) ignores the limit, so the files are also made empty (core(5))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # a kernel without core files
        Path("/proc/self/coredump_filter").write_text("0")


def close() -> None:
    """Let only root inspect this process (prctl(2), PR_SET_DUMPABLE). Its forks are closed too, programs that it
    executes are not. Only for a process that no other process of the fleet inspects."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def close_to_strangers() -> None:
    """``close``, if the supervisor can still inspect this process. It must: it measures a worker's memory, and finds
    what a dead one left by open files and environment. That needs CAP_SYS_PTRACE (proc(5)), which an ordinary user does
    not have: that user can still inspect the workers. See docs/decisions/closed-processes.md."""
    if _may_look_anywhere():
        close()


def _may_look_anywhere() -> bool:
    told = Path("/proc/self/status").read_text()
    held = next((line.split()[1] for line in told.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> _CAP_SYS_PTRACE & 1)


def wipe_environment(but: Collection[str] = ()) -> None:
    """Remove all environment variables except those named ``but``, also from the initial memory, which
    /proc/PID/environ shows for the life of the process, and which its forks inherit."""
    for name in [name for name in os.environ if name not in but]:
        del os.environ[name]
    start, end = _initial_environment()
    at = start
    for entry in ctypes.string_at(start, end - start).split(b"\0") if start else ():
        if os.fsdecode(entry.partition(b"=")[0]) not in but:
            ctypes.memset(at, 0, len(entry))  # no pointer to it is left: a removed variable is not read again
        at += len(entry) + 1


def _initial_environment() -> tuple[int, int]:
    """Its first and last address; 0 if the kernel does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return int(fields[_ENV_START]), int(fields[_ENV_START + 1])
    except (OSError, IndexError, ValueError):
        return 0, 0
