"""The zygote's own process: forks jobs, ends them, and ends with its worker. What a job does is its ``Work``.

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
from fleet_common.process import become_subreaper

LARGEST = 64 * 1024
"""Bytes of a message between worker and zygote."""
END = signal.SIGUSR2
"""Tells a zygote to end; unlike SIGTERM it is not sent to a worker's whole group by anybody."""
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MOST_WORDS = 1000  # of an error; a database's holds the whole statement


class Work(Protocol):
    """What jobs are. ``errand`` is an ``Errand`` as a dictionary."""

    def prepare(self, errand: dict[str, Any]) -> Any:
        """What all jobs of a datasite share, made once in the zygote. Where it fails it is called again."""

    def run(self, errand: dict[str, Any], prepared: Any, nudge: Callable[[], None]) -> None:
        """Run that job to its end, in its own process. ``nudge`` is called when it has queued another one."""


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """That signal comes when ``parent`` ends (prctl(2)); had it ended before, this process ends at once."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def live(control: socket.socket, nudge: int, worker: int, work: Callable[[], Work]) -> NoReturn:
    """The zygote's life. It shrugs off what is sent to the worker's whole group: it ends with the worker, and takes its
    jobs and what they started along. ``work`` is called once, for the first job."""
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
    except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            signal.signal(END, signal.SIG_IGN)
            life.end_jobs()
        finally:
            os._exit(0)


class _End(BaseException):
    """Not to be caught by anything that handles errors."""


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
            _kill(self._jobs[asked["kill"]][0])
        return True

    def _prepare(self, errand: dict[str, Any]) -> Any:
        """What the jobs share. At the first of them: a datasite that runs none pays nothing for it."""
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
        """Start the job of ``errand``; the worker is told whether that went well."""
        zygote = os.getpid()
        try:
            prepared = self._prepare(errand)
        except Exception as error:  # noqa: BLE001 - a locked database, say: no reason to end, nor to lose a job
            self._tell({"unborn": tag, "why": _words(error)})
            return
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, no memory: those that run are not to suffer for it
            self._refuse(tag, error)
            return
        if pid == 0:
            self._become_job(zygote, errand, prepared)
        self.watch(tag, pid)

    def watch(self, tag: int, pid: int) -> None:
        """Tell the worker when the job with that pid has ended."""
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:  # too many files: its end would never be heard of
            _kill(pid)
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
            _kill(pid)
            os.waitpid(pid, 0)
        self._jobs.clear()
        self._end_strays()

    def _become_job(self, zygote: int, errand: dict[str, Any], prepared: Any) -> NoReturn:
        code = 1
        try:
            die_with(zygote)
            mark()  # and not the zygote, which is known by its pid, and whose end frees no memory
            become_subreaper()
            os.setpgid(0, 0)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, END):
                signal.signal(number, signal.SIG_DFL)
            self._let_go()
            self._loaded().run(errand, prepared, lambda: _nudge(self._nudge))
            code = 0
        except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
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
        _kill_group(pid)  # what user code left behind in it, while the number still is the job's
        _, status = os.waitpid(pid, 0)
        self._end_strays()
        self._tell({"gone": tag, "status": status})

    def _end_strays(self) -> None:
        """A job is the subreaper of all it starts, and the zygote that of the job: a child that is no job was left
        behind by one, in whatever session it is."""
        jobs = {pid for pid, _ in self._jobs.values()}
        end_all(lambda: _children() - jobs)

    def _tell(self, message: dict[str, Any]) -> None:
        self._control.send(json.dumps(message).encode())


def _words(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_MOST_WORDS]


def _children() -> set[int]:
    return {int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _kill(pid: int) -> None:
    _kill_group(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # it may not have its own group yet


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _nudge(fd: int) -> None:
    with contextlib.suppress(OSError):  # full: then one is on its way already
        os.write(fd, b".")
