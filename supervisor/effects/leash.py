"""Finds and ends what a dead worker left behind: every process that holds its leash, or names it in its environment.

Process groups reach only what stayed in them; user code may have left its group, its session or even its parent.
What it forked still has the worker's leash open, and what it executed still has the leash's name in its environment.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from datasite_worker.contract import LEASH_VARIABLE
from supervisor.effects.processes import is_zombie, start_ticks

PATIENCE = 2.0
"""Seconds to wait for killed processes to be gone: until then they may hold a port or a database."""
_LOOK = 0.002


def bearers(leash: Path, since: int = 0) -> list[int]:
    """The living processes of that leash, but for ourselves. ``since``: only those that began no earlier, in ticks."""
    return [pid for pid in _processes(since) if pid != os.getpid() and _bears(pid, leash)]


def sweep(leash: Path, since: int = 0) -> int:
    """SIGKILL every bearer and wait until none is left; how many there were."""
    found = bearers(leash, since)
    give_up = time.monotonic() + PATIENCE
    left = found
    while left and time.monotonic() < give_up:
        for pid in left:
            _kill(pid)
        time.sleep(_LOOK)
        left = bearers(leash, since)
    return len(found)


def _processes(since: int) -> Iterator[int]:
    for pid in psutil.pids():
        if (start_ticks(pid) or -1) >= since and not is_zombie(pid):
            yield pid


def _bears(pid: int, leash: Path) -> bool:
    try:
        if f"{LEASH_VARIABLE}={leash}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return True
        with os.scandir(f"/proc/{pid}/fd") as links:
            return any(_target(link) == str(leash) for link in links)
    except OSError:
        return False  # gone, or another user's


def _target(link: os.DirEntry[str]) -> str:
    try:
        return str(Path(link.path).readlink())
    except OSError:
        return ""


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
