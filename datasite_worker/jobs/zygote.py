"""A process that does nothing but fork jobs: clean, with one thread, and with PySyft and torch loaded.

A job forked from the serving process can deadlock, as threads there hold SQLite's locks; a fresh interpreter for each
costs seconds and half a gigabyte. So the worker forks a zygote before it has any thread, and the zygote forks the jobs.
It knows nothing of jobs: an errand is a dictionary for ``jobs.process.run``.

Between the two: a socket of whole messages (JSON). Down: ``{"run": tag, "errand": …}``, ``{"kill": tag}``. Up:
``{"born": tag, "pid": …}``, ``{"gone": tag, "status": …}``, the status as of waitpid(2), or ``{"gone": tag, "status":
null, "why": …}`` for a job that could not be forked, and ``{"unborn": tag, "why": …}`` for one that was not even tried
to, and may be asked for again. The zygote ends with its worker, however that ends, and the jobs with the zygote.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import setproctitle

from datasite_worker.strays import end_all, end_orphans, mark, marked
from fleet_common.process import become_subreaper

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LARGEST = 64 * 1024
_MOST_WORDS = 1000  # of an error; a database's holds the whole statement
_BURIAL = 5.0
"""Seconds that a zygote has to end its jobs in order, before it is killed itself."""
_END = signal.SIGUSR2
"""Tells a zygote to end; unlike SIGTERM it is not sent to a worker's whole group by anybody."""


@dataclass(frozen=True, slots=True)
class Born:
    """The job of that errand runs as ``pid``."""

    tag: int
    pid: int


@dataclass(frozen=True, slots=True)
class Gone:
    """It has ended and was reaped. ``status`` is waitpid's; None: nobody knows how, but ``why`` may say."""

    tag: int
    status: int | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Unborn:
    """Nothing of it has begun: what all jobs share could not be made now. Another time it may."""

    tag: int
    why: str


class Zygote:
    """The worker's end. ``nudges``: what jobs write a byte to when they have queued something themselves."""

    def __init__(self, control: socket.socket, nudges: int, pid: int) -> None:
        self.control = control
        self.nudges = nudges
        self.pid = pid
        self._mark = marked()

    @classmethod
    def forked(cls) -> Zygote:
        """Forked from this process, which has to have one thread still; see ``may_fork``."""
        ours, theirs, nudges, nudge = _channels()
        worker = os.getpid()
        with _closing_at_failure(ours, theirs, nudges, nudge):
            pid = os.fork()
        if pid == 0:
            ours.close()
            os.close(nudges)
            _live(theirs, nudge, worker)
        return cls._kept(ours, theirs, nudges, nudge, pid)

    @classmethod
    def fresh(cls) -> Zygote:
        """A new interpreter, which takes seconds to import PySyft: for a process that must not fork any more."""
        ours, theirs, nudges, nudge = _channels()
        arguments = [str(one) for one in (theirs.fileno(), nudge, os.getpid())]
        # -P: the working directory is the datasite's, and user code writes files into it.
        with _closing_at_failure(ours, theirs, nudges, nudge):
            started = subprocess.Popen(
                [sys.executable, "-P", "-m", "datasite_worker.jobs.zygote", *arguments],
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
        """The next word, waiting for it; None: the zygote is gone."""
        try:
            told = json.loads(self.control.recv(_LARGEST) or b"null")
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
        """End it, if it lives, and leave nothing of it, nor of its jobs."""
        try:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, _END)
                self._wait(_BURIAL)
                os.kill(self.pid, signal.SIGKILL)
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


def may_fork() -> bool:
    """Whether this process has no thread of Python's beside the one that asks."""
    return threading.active_count() == 1


def _channels() -> tuple[socket.socket, socket.socket, int, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nudges, nudge = os.pipe()
    os.set_blocking(nudges, False)
    os.set_blocking(nudge, False)
    return ours, theirs, nudges, nudge


@contextlib.contextmanager
def _closing_at_failure(ours: socket.socket, theirs: socket.socket, nudges: int, nudge: int) -> Iterator[None]:
    """A zygote that could not be made is tried again each second: nothing of it may stay open."""
    try:
        yield
    except BaseException:
        for end in (ours, theirs):
            end.close()
        for fd in (nudges, nudge):
            os.close(fd)
        raise


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """That signal comes when ``parent`` ends (prctl(2)); had it ended before, this process ends at once."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _live(control: socket.socket, nudge: int, worker: int) -> NoReturn:
    """The zygote's life. It shrugs off what is sent to the worker's whole group: it ends with the worker, and takes its
    jobs and what they started along."""
    life = _Life(control, nudge)
    try:
        signal.signal(_END, _told_to_end)
        die_with(worker, _END)
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
            signal.signal(_END, signal.SIG_IGN)
            life.end_jobs()
        finally:
            os._exit(0)


class _End(BaseException):
    """Not to be caught by anything that handles errors."""


def _told_to_end(*_: object) -> NoReturn:
    raise _End


class _Life:
    def __init__(self, control: socket.socket, nudge: int) -> None:
        self._control = control
        self._nudge = nudge
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
        raw = self._control.recv(_LARGEST)
        if not raw:
            return False
        asked = json.loads(raw)
        if "run" in asked:
            self._fork(asked["run"], asked["errand"])
        elif asked["kill"] in self._jobs:
            _kill(self._jobs[asked["kill"]][0])
        return True

    def _prepare(self, errand: dict[str, Any]) -> Any:
        """What the jobs share. At the first of them: a line that runs none pays nothing for it."""
        if self._prepared is None:
            from datasite_worker.pysyft.jobs import process

            self._prepared = process.prepare(errand)
            gc.collect()
            gc.freeze()
        return self._prepared

    def _fork(self, tag: int, errand: dict[str, Any]) -> None:
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
        self._watch(tag, pid)

    def _watch(self, tag: int, pid: int) -> None:
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
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, _END):
                signal.signal(number, signal.SIG_DFL)
            self._let_go()
            from datasite_worker.pysyft.jobs import process

            process.run(errand, prepared, lambda: _nudge(self._nudge))
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


def main() -> None:
    control, nudge, worker = (int(word) for word in sys.argv[1:4])
    from fleet_common import secrecy

    secrecy.close_to_strangers()

    _live(socket.socket(fileno=control), nudge, worker)


if __name__ == "__main__":
    main()
