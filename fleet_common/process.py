"""Turns a forked process into a worker with its own session, folder, name and log.

No PySyft here: the embedded dashboard becomes a worker in the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import multiprocessing
import os
import secrets
import signal
from multiprocessing import forkserver, resource_tracker
from pathlib import Path

import psutil
import setproctitle

from fleet_common import folders, logs, secrecy, signals
from fleet_common.contract import LEASH_VARIABLE, ExitCode
from fleet_common.failures import ConfigurationFailure
from fleet_common.layout import WorkerFolder

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def become(title: str, work_dir: Path, log_path: Path, verbose: bool = False, *, state_dir: Path | None = None) -> None:
    """Leave the parent behind: own session (so that a signal to the group reaches all our children), own folder,
    own leash in ``state_dir`` (default: ``work_dir``), raw output beside the log, and the signal dispositions of a
    fresh process, but that SIGHUP is ignored until somebody handles it. Raises folders.Unsafe."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if os.getpgrp() != os.getpid():
        os.setsid()
    os.umask(0o077)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    secrecy.leave_no_core()
    secrecy.close_to_strangers()
    own_folders(state_dir or work_dir, work_dir)
    keep_descendants(state_dir or work_dir)
    if _orphaned():  # checked with the leash open: the next supervisor finds us by it
        os._exit(ExitCode.CLEAN)
    _leave_forkserver()
    os.chdir(work_dir)
    logs.redirect(log_path.with_suffix(".out"))
    setproctitle.setproctitle(title)
    logs.log_to(log_path, console=verbose)


def own_folders(state_dir: Path, work_dir: Path) -> None:
    """Ensure that both exist and that no other user can change them or has put a link into ``state_dir``. Raises
    folders.Unsafe."""
    folders.make(state_dir)
    folders.check_inside(state_dir)
    folders.make(work_dir)


def become_subreaper() -> None:
    """Orphans below this process become its children (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_descendants(state_dir: Path) -> None:
    """Keep all descendants below this process while it lives (prctl(2)), and mark them with its leash."""
    become_subreaper()
    leash = _leash(state_dir)
    os.environ[LEASH_VARIABLE] = str(leash)


def _orphaned() -> bool:
    """Whether the supervisor died before this process started. A forkserver that was still importing serves the request
    anyway, and nobody would know of the process, which would keep the port."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _leave_forkserver() -> None:
    """multiprocessing hands every child the pipes by which its forkserver and resource tracker live. If a worker
    kept them open, the helpers of each killed supervisor would live on."""
    held = ((forkserver._forkserver, "_forkserver_alive_fd"), (resource_tracker._resource_tracker, "_fd"))
    for helper, name in held:  # no public name lets go of them
        fd = getattr(helper, name, None)
        if fd is not None:
            setattr(helper, name, None)
            os.close(fd)
    multiprocessing.process.current_process()._config.pop("tempdir", None)  # type: ignore[attr-defined]  # the supervisor's


_held: dict[Path, int] = {}


def _leash(state_dir: Path) -> Path:
    """The leash in ``state_dir``, open and inheritable from now on."""
    path = WorkerFolder(state_dir.absolute()).leash
    if path not in _held:
        folders.make(path.parent)
        _held[path] = folders.open_file(path, os.O_RDWR | os.O_CREAT)
        os.set_inheritable(_held[path], True)
    return path


def probe_key(state_dir: Path) -> str:
    """The secret that gives access to a worker's whole status; drawn if there is none."""
    path = WorkerFolder(state_dir).probe_key
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        if kept := folders.read_text(path).strip():
            return kept
    folders.write_text(path, secrets.token_hex(32))
    return folders.read_text(path)


def claim(state_dir: Path) -> None:
    """Claim the state folder for this process for as long as it lives; forked children do not inherit the claim.

    Raises ConfigurationFailure when another process has it.
    """
    fd = _held[_leash(state_dir)]
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigurationFailure(
            f"{state_dir} is in use by another process{_owner(fd)}; stop that process or choose another name"
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _owner(fd: int) -> str:
    said = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return f" (pid {said})" if said.isdigit() else ""


def join_cgroup(folder: str) -> str:
    """Move this process into the control group at ``folder``, if given. Returns an error text, or an empty one."""
    if not folder:
        return ""
    try:
        (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        return f"cannot join the control group {folder}: {error.strerror or error}; its limits do not apply"
    return ""


def end_descendants() -> None:
    """SIGKILL what user code left running. As a subreaper this process still has all of it as descendants."""
    pids = [child.pid for child in psutil.Process().children(recursive=True)]
    for pid, created in [(pid, signals.start_ticks(pid)) for pid in pids]:
        if created is not None:
            signals.send(pid, created, signal.SIGKILL)
