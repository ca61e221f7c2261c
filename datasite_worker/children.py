"""The processes below this one: whether it may fork, and what becomes of children that nobody waits for.

What user code forked twice comes to the worker, and would stay a zombie.

An exit status is never stolen from subprocess or multiprocessing: a child that either of them knows is left to it, and
any other only goes when it has been dead for two rounds, so that code which forks by itself has time to wait for it.

And living children that are nobody's any more: what the jobs of a dead zygote started comes to the worker too. It is
known by a mark that is inherited whatever environment and files a program is started with: a raised score for the
kernel's choice of what to end when memory runs out (proc(5), oom_score_adj); a training should go then, no datasite.
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

ROUND = 30.0
"""Seconds between two rounds."""
_SCORE = Path("/proc/self/oom_score_adj")
_RAISE = 100  # as if a job had taken a tenth of the memory more than it has
_HIGHEST = 1000


def may_fork() -> bool:
    """Whether this process has no thread of Python's beside the one that asks."""
    return threading.active_count() == 1


class Orphans:
    """Reaps, in rounds, what is dead and nobody's."""

    def __init__(self) -> None:
        self._dead: set[int] = set()

    def reap(self) -> set[int]:
        """One round; the pids reaped."""
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
    """SIGKILL the children of that score, whatever comes to us from them, and wait for it."""
    end_all(lambda: {one.pid for one in psutil.Process().children() if _has(one.pid, score)})


def end_all(children: Callable[[], set[int]]) -> None:
    """SIGKILL and reap until there are none, but for those that are not ours to end: a program that runs as root."""
    spared: set[int] = set()
    while found := children() - spared:
        spared |= {pid for pid in found if not _end(pid)}


def _end(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return True
    except PermissionError:
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
