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
from fleet_common.signals import lives_since, send

PATIENCE = 2.0
"""Seconds to wait until killed processes have ended: until then they may hold a port or a database."""
_LOOK = 0.002


def bearers(leash: Path, since: int = 0, but: Collection[int] = ()) -> list[int]:
    """The running processes with that leash, except ourselves and those in ``but``, which belong to others. ``since``:
    only those that started no earlier, in clock ticks since boot."""
    return list(_bearers(leash, since, but))


def _bearers(leash: Path, since: int, but: Collection[int]) -> dict[int, int]:
    """Each with its start time."""
    mark, path = f"{LEASH_VARIABLE}={leash}".encode(), str(leash)
    others = {os.getpid(), *but}
    living = {pid: began for pid in psutil.pids() if pid not in others and (began := lives_since(pid, since))}
    return {pid: began for pid, began in living.items() if _bears(pid, mark, path)}


def sweep(leash: Path, since: int = 0, but: Collection[int] = ()) -> int:
    """SIGKILL every process with the leash and wait until none is left; returns how many there were."""
    found = _bearers(leash, since, but)
    give_up = time.monotonic() + PATIENCE
    left = found
    while left and time.monotonic() < give_up:
        for pid, began in left.items():
            send(pid, began, signal.SIGKILL)
        time.sleep(_LOOK)
        left = _bearers(leash, since, but)
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
