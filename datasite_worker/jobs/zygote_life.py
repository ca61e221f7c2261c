"""The zygote's own process: forks jobs, ends them, and ends with its worker. ``Work`` says what a job does.

The messages between it and the worker are described in ``jobs.zygote``. It starts no thread and opens no socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Protocol

import setproctitle

from datasite_worker.children import end_all, mark
from fleet_common import signals
from fleet_common.process import become_subreaper

LARGEST = 64 * 1024
"""Bytes of a message between worker and zygote."""
END = signal.SIGUSR2
"""Tells a zygote to end. Unlike SIGTERM, nobody sends it to a worker's whole process group."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_WORDS = 1000  # of an error's text; a database error contains the whole statement


class Work(Protocol):
    """Runs jobs. ``errand`` is an ``Errand`` as a dictionary."""

    def prepare(self, errand: dict[str, Any]) -> Any:
        """Make what all jobs of a datasite share, once, in the zygote. It is called again if it fails."""

    def run(self, errand: dict[str, Any], prepared: Any, nudge: Callable[[], None]) -> None:
        """Run that job to its end, in its own process. Call ``nudge`` when it has queued another job."""


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Have that signal sent when ``parent`` ends (prctl(2)). If it has ended already, this process ends at once."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def live(control: socket.socket, nudge: int, worker: int, work: Callable[[], Work]) -> NoReturn:
    """Run the zygote. It ignores signals to the worker's whole group. It ends when the worker ends, and then ends its
    jobs and their children. ``work`` is called once, for the first job."""
    life = Life(control, nudge, work)
    try:
        signal.signal(END, _told_to_end)
        die_with(worker, END)
        become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        setproctitle.setproctitle("fleet: jobs are forked from here")
        gc.freeze()
        life.go_on()
    except _End:
        pass
    except BaseException:  # noqa: BLE001 - this process ends here, whatever the error
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            signal.signal(END, signal.SIG_IGN)
            life.end_jobs()
        finally:
            os._exit(0)


class _End(BaseException):
    """Not an Exception, so that no error handler catches it."""


def _told_to_end(*_: object) -> NoReturn:
    raise _End


class Life:
    """The jobs of one zygote. ``control`` and ``nudge`` are its ends of the channels to the worker."""

    def __init__(self, control: socket.socket, nudge: int, work: Callable[[], Work]) -> None:
        self._control = control
        self._nudge = nudge
        self._load = work
        self._work: Work | None = None
        self._selector = selectors.DefaultSelector()
        self._jobs: dict[int, tuple[int, int]] = {}  # tag: pid, pidfd
        self._prepared: Any = None

    def go_on(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.data is not None:
                    self._reap(key.data)
                elif not self._obey():
                    return

    def _obey(self) -> bool:
        raw = self._control.recv(LARGEST)
        if not raw:
            return False
        asked = json.loads(raw)
        if "run" in asked:
            self.fork(asked["run"], asked["errand"])
        elif asked["kill"] in self._jobs:
            signals.to_childs_group(self._jobs[asked["kill"]][0], signal.SIGKILL)
        return True

    def _prepare(self, errand: dict[str, Any]) -> Any:
        """What the jobs share, made for the first job: a datasite without jobs does not pay for it."""
        if self._prepared is None:
            self._prepared = self._loaded().prepare(errand)
            gc.collect()
            gc.freeze()
        return self._prepared

    def _loaded(self) -> Work:
        if self._work is None:
            self._work = self._load()
        return self._work

    def fork(self, tag: int, errand: dict[str, Any]) -> None:
        """Start the job of ``errand``, and tell the worker whether it started."""
        zygote = os.getpid()
        try:
            prepared = self._prepare(errand)
        except Exception as error:  # noqa: BLE001 - for example a locked database: no reason to end or to lose a job
            self._tell({"unborn": tag, "why": _words(error)})
            return
        try:
            pid = os.fork()
        except OSError as error:  # too many processes or no memory: running jobs must not suffer
            self._refuse(tag, error)
            return
        if pid == 0:
            self._become_job(zygote, errand, prepared)
        self.watch(tag, pid)

    def watch(self, tag: int, pid: int) -> None:
        """Tell the worker when the job with that pid has ended."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # too many files: its end would go unnoticed
            signals.to_childs_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            self._end_strays()
            self._refuse(tag, error)
            return
        self._jobs[tag] = pid, pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, tag)
        self._tell({"born": tag, "pid": pid})

    def _refuse(self, tag: int, error: OSError) -> None:
        self._tell({"gone": tag, "status": None, "why": f"it could not be started: {_words(error)}"})

    def end_jobs(self) -> None:
        for pid, _ in self._jobs.values():
            signals.to_childs_group(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._jobs.clear()
        self._end_strays()

    def _become_job(self, zygote: int, errand: dict[str, Any], prepared: Any) -> NoReturn:
        code = 1
        try:
            die_with(zygote)
            mark()  # not the zygote: its end would free no memory
            become_subreaper()
            os.setpgid(0, 0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, END):
                signal.signal(number, signal.SIG_DFL)
            self._let_go()
            self._loaded().run(errand, prepared, lambda: _nudge(self._nudge))
            code = 0
        except BaseException:  # noqa: BLE001 - this process ends here, whatever the error
            sys.excepthook(*sys.exc_info())
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _let_go(self) -> None:
        self._selector.close()
        self._control.close()
        for _, pidfd in self._jobs.values():
            os.close(pidfd)

    def _reap(self, tag: int) -> None:
        pid, pidfd = self._jobs.pop(tag)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        # What user code left in the group, while the number is still the job's.
        signals.to_childs_group(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._end_strays()
        self._tell({"gone": tag, "status": status})

    def _end_strays(self) -> None:
        """A job is the subreaper of all it starts, and the zygote that of the job. So a child that is not a job was
        left behind by one, whatever its session."""
        jobs = {pid for pid, _ in self._jobs.values()}
        end_all(lambda: _children() - jobs)

    def _tell(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_MOST_WORDS]


def _children() -> set[int]:
    return {int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _nudge(fd: int) -> None:
    with contextlib.suppress(OSError):  # full: a nudge is under way already
        os.write(fd, b".")
