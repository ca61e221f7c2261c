"""The worker's side of its zygote: a process that only forks jobs, with one thread, and with PySyft and torch loaded.

A job forked from the serving process can deadlock, because threads there hold SQLite's locks. A new interpreter for
each job costs seconds and half a gigabyte. So the worker forks a zygote before it has any thread, and the zygote forks
the jobs. It knows nothing about jobs: the engine's ``Work`` runs them, and an errand is just a dictionary here. The
zygote's own process is ``jobs.zygote_life``.

Between the two: a socket of whole messages (JSON). Down: ``{"run": tag, "errand": …}``, ``{"kill": tag}``. Up:
``{"born": tag, "pid": …}``, ``{"gone": tag, "status": …}``, the status as of waitpid(2), or ``{"gone": tag, "status":
null, "why": …}`` for a job that could not be forked, and ``{"unborn": tag, "why": …}`` for one that was not tried and
may be sent again. The zygote always ends with its worker, and the jobs with the zygote.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from datasite_worker.children import end_orphans, marked
from datasite_worker.jobs.zygote_life import END, LARGEST, Work, live
from fleet_common import signals

_BURIAL = 5.0
"""Seconds that a zygote has to end its jobs, before it is killed."""


@dataclass(frozen=True, slots=True)
class Born:
    """The job of that errand runs as ``pid``."""

    tag: int
    pid: int


@dataclass(frozen=True, slots=True)
class Gone:
    """It has ended and was reaped. ``status`` is waitpid's; None: unknown, but ``why`` may give the reason."""

    tag: int
    status: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Unborn:
    """It did not begin: what all jobs share could not be prepared now. A later try may succeed."""

    tag: int
    why: str


class Zygote:
    """The worker's side. ``nudges``: a channel to which jobs write a byte when they have queued a job."""

    def __init__(self, control: socket.socket, nudges: int, pid: int) -> None:
        self.control = control
        self.nudges = nudges
        self.pid = pid
        self._mark = marked()

    @classmethod
    def forked(cls, work: Callable[[], Work]) -> Zygote:
        """Fork it from this process, which must have only one thread; see ``children.may_fork``."""
        ours, theirs, nudges, nudge = channels()
        worker = os.getpid()
        with _closing_at_failure(ours, theirs, nudges, nudge):
            pid = os.fork()
        if pid == 0:
            ours.close()
            os.close(nudges)
            live(theirs, nudge, worker, work)
        return cls._kept(ours, theirs, nudges, nudge, pid)

    @classmethod
    def fresh(cls, program: str) -> Zygote:
        """Start a new interpreter, which takes seconds to import the engine: for a process that may no longer fork.

        ``program``: the module to run. Its arguments are the two channels and this process's pid.
        """
        ours, theirs, nudges, nudge = channels()
        arguments = [str(one) for one in (theirs.fileno(), nudge, os.getpid())]
        # -P: the working directory is the datasite's, and user code writes files into it.
        with _closing_at_failure(ours, theirs, nudges, nudge):
            started = subprocess.Popen(
                [sys.executable, "-P", "-m", program, *arguments],
                pass_fds=(theirs.fileno(), nudge),
                stdin=subprocess.DEVNULL,
            )
        started.returncode = 0  # reaped by ``bury``, not by Popen
        return cls._kept(ours, theirs, nudges, nudge, started.pid)

    @classmethod
    def _kept(cls, ours: socket.socket, theirs: socket.socket, nudges: int, nudge: int, pid: int) -> Zygote:
        theirs.close()
        os.close(nudge)
        return cls(ours, nudges, pid)

    def run(self, tag: int, errand: dict[str, Any]) -> None:
        """Ask for a job. Raises OSError when the zygote is gone."""
        self._send({"run": tag, "errand": errand})

    def kill(self, tag: int) -> None:
        """SIGKILL the job of that errand, and its process group. Raises OSError when the zygote is gone."""
        self._send({"kill": tag})

    def _send(self, message: dict[str, Any]) -> None:
        self.control.send(json.dumps(message).encode())

    def hear(self) -> Born | Gone | Unborn | None:
        """Wait for the next message. None: the zygote is gone."""
        try:
            told = json.loads(self.control.recv(LARGEST) or b"null")
        except OSError:
            return None
        if told is None:
            return None
        if "born" in told:
            return Born(told["born"], told["pid"])
        if "unborn" in told:
            return Unborn(told["unborn"], told["why"])
        return Gone(told["gone"], told["status"], told.get("why", ""))

    def bury(self) -> None:
        """End the zygote if it lives, with all its jobs, and clean up."""
        try:
            if signals.to_child(self.pid, END):
                self._wait(_BURIAL)
                signals.to_child(self.pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)
            end_orphans(self._mark)
        finally:
            self.control.close()
            os.close(self.nudges)

    def _wait(self, seconds: float) -> None:
        pidfd = os.pidfd_open(self.pid)
        try:
            select.select([pidfd], [], [], seconds)
        finally:
            os.close(pidfd)


def channels() -> tuple[socket.socket, socket.socket, int, int]:
    """The worker's and the zygote's end of their messages; then those of the nudges."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nudges, nudge = os.pipe()
    os.set_blocking(nudges, False)
    os.set_blocking(nudge, False)
    return ours, theirs, nudges, nudge


@contextlib.contextmanager
def _closing_at_failure(ours: socket.socket, theirs: socket.socket, nudges: int, nudge: int) -> Iterator[None]:
    """Starting a zygote is tried again every second, so a failed try must leave nothing open."""
    try:
        yield
    except BaseException:
        for end in (ours, theirs):
            end.close()
        for fd in (nudges, nudge):
            os.close(fd)
        raise
