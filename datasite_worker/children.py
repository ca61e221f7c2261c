"""The processes below this one: whether it may fork, and how children that no code waits for are cleaned up.

A process that user code forked twice becomes a child of the worker, and would stay a zombie.

This module never takes an exit status from subprocess or multiprocessing: it leaves the children that they know alone.
It reaps any other child only after two rounds, so that code which forks by itself has time to wait for it.

It also ends living children that lost their owner: what the jobs of a dead zygote started becomes a child of the worker
too. Such a process is recognised by a mark that every program inherits, whatever its environment and files: a raised
oom_score_adj (proc(5)). When memory runs out, the kernel should end a training before a datasite.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import psutil

from fleet_common import signals

ROUND = 30.0
"""Seconds between two rounds."""
_SCORE = Path("/proc/self/oom_score_adj")
_RAISE = 100  # counts as if a job used a tenth more of the memory
_HIGHEST = 1000


def may_fork() -> bool:
    """Whether the calling thread is this process's only Python thread."""
    return threading.active_count() == 1


class Orphans:
    """Reaps, in rounds, dead children that no code waits for."""

    def __init__(self) -> None:
        self._dead: set[int] = set()

    def reap(self) -> set[int]:
        """Do one round. Returns the pids reaped."""
        dead = {child.pid for child in psutil.Process().children() if _is_zombie(child)}
        old = dead & self._dead
        gone = old - _known() if old else set()
        for pid in gone:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        self._dead = dead - gone
        return gone


def _is_zombie(child: psutil.Process) -> bool:
    try:
        return bool(child.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _known() -> set[int]:
    """Pids that an object of this process waits for. Walks all objects, so it is only asked when there is a zombie."""
    processes = {child.pid for child in multiprocessing.active_children() if child.pid is not None}
    # What was dropped while its process ran is kept by subprocess itself, and only looked at when the next one starts.
    dropped = {id(one) for one in getattr(subprocess, "_active", None) or ()}
    # By type(): isinstance() asks an object for its class, and some of torch's answer that with a warning.
    started = [one for one in gc.get_objects() if issubclass(type(one), subprocess.Popen)]
    waiting = {one.pid for one in started if id(one) not in dropped}
    return processes | waiting


def marked() -> int | None:
    """The score of what this process has marked, or is to mark; None where marks tell nothing."""
    own = _score(_SCORE)
    return None if own is None or own == _HIGHEST else min(own + _RAISE, _HIGHEST)


def mark() -> None:
    """Mark this process, and all that it will ever start."""
    score = marked()
    if score is not None:
        with contextlib.suppress(OSError):
            _SCORE.write_text(str(score))


def end_orphans(score: int | None) -> None:
    """SIGKILL the children with that score, and all children that reach us from them, and wait for them."""
    end_all(lambda: {one.pid for one in psutil.Process().children() if _has(one.pid, score)})


def end_all(children: Callable[[], set[int]]) -> None:
    """SIGKILL and reap until none is left, except those that this user may not end, such as a program of root's."""
    spared: set[int] = set()
    while found := children() - spared:
        spared |= {pid for pid in found if not _end(pid)}


def _end(pid: int) -> bool:
    if not signals.to_child(pid, signal.SIGKILL):
        return False
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    return True


def _has(pid: int, score: int | None) -> bool:
    return score is not None and _score(Path(f"/proc/{pid}/oom_score_adj")) == score


def _score(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
