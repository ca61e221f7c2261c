"""Finds and kills what a dead worker left behind: every process that holds its leash, or names it in its environment.

A process group contains only what stayed in it; user code may have left its group, its session or even its parent. But
what it forked still has the leash open, and what it executed still has its name in the environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

import psutil

from fleet_common.contract import LEASH_VARIABLE
from supervisor.effects.processes import lives_since

PATIENCE = 2.0
"""Seconds to wait until killed processes have ended: until then they may hold a port or a database."""
_LOOK = 0.002


def bearers(leash: Path, since: int = 0, but: Collection[int] = ()) -> list[int]:
    """The running processes with that leash, except ourselves and those in ``but``, which belong to others. ``since``:
    only those that started no earlier, in clock ticks since boot.

    ``since``: only those that began no earlier, in clock ticks since boot.
    """
    mark, path = f"{LEASH_VARIABLE}={leash}".encode(), str(leash)
    others = {os.getpid(), *but}
    return [pid for pid in psutil.pids() if pid not in others and lives_since(pid, since) and _bears(pid, mark, path)]


def sweep(leash: Path, since: int = 0, but: Collection[int] = ()) -> int:
    """SIGKILL every process with the leash and wait until none is left; returns how many there were."""
    found = bearers(leash, since, but)
    give_up = time.monotonic() + PATIENCE
    left = found
    while left and time.monotonic() < give_up:
        for pid in left:
            _kill(pid)
        time.sleep(_LOOK)
        left = bearers(leash, since, but)
    return len(found)


def _bears(pid: int, mark: bytes, path: str) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as environ:
            if mark in environ.read().split(b"\0"):
                return True
        with os.scandir(f"/proc/{pid}/fd") as links:
            return any(_target(link.path) == path for link in links)
    except OSError:
        return False  # gone, or another user's


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115 - a sweep reads thousands of them
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
