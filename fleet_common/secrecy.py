"""Keeps what a process holds in memory to itself: no core file, and no look into it from outside.

Standard library only; for supervisor and workers. Changes this process and what it will start, nothing else. It does
not keep user code from reading what its own user can read: see docs/security.md.
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
    """No core file, from now on and for ever, of this process and all that it starts. A program that the kernel pipes
    core files to (core_pattern) is not bound by the limit, so there is nothing in them for it either (core(5))."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):  # a kernel without core files at all
        Path("/proc/self/coredump_filter").write_text("0")


def close() -> None:
    """Let nobody but root look into this process (prctl(2), PR_SET_DUMPABLE); what it forks is closed too, what it
    executes is not. Only for a process that no other one of ours has to look into."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def close_to_strangers() -> None:
    """``close``, where our own supervisor may look all the same. It has to: a worker's memory is weighed, and what is
    left of a dead one is found by its open files and its environment. That takes CAP_SYS_PTRACE (proc(5)), which an
    ordinary user has not: his workers stay open to him. See docs/decisions/closed-processes.md."""
    if _may_look_anywhere():
        close()


def _may_look_anywhere() -> bool:
    told = Path("/proc/self/status").read_text()
    held = next((line.split()[1] for line in told.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(held, 16) >> _CAP_SYS_PTRACE & 1)


def wipe_environment(but: Collection[str] = ()) -> None:
    """Take all variables from this process but those named ``but``: also from the memory that it began with, which
    /proc/PID/environ shows for as long as it lives, and which what it forks inherits."""
    for name in [name for name in os.environ if name not in but]:
        del os.environ[name]
    start, end = _initial_environment()
    at = start
    for entry in ctypes.string_at(start, end - start).split(b"\0") if start else ():
        if os.fsdecode(entry.partition(b"=")[0]) not in but:
            ctypes.memset(at, 0, len(entry))  # nobody has a pointer to it: what was taken out is read no more
        at += len(entry) + 1


def _initial_environment() -> tuple[int, int]:
    """From where to where; 0 where the kernel does not say."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return int(fields[_ENV_START]), int(fields[_ENV_START + 1])
    except (OSError, IndexError, ValueError):
        return 0, 0
