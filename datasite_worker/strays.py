"""Dead children that nobody waits for: what user code forked twice comes to the worker, and would stay a zombie.

An exit status is never stolen from subprocess or multiprocessing: a child that either of them knows is left to it, and
any other only goes when it has been dead for two rounds, so that code which forks by itself has time to wait for it.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import subprocess

import psutil

ROUND = 30.0
"""Seconds between two rounds."""


class Strays:
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
