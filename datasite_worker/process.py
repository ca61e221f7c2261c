"""How a forked process becomes a worker: its own session, folder, name and log; and how it takes its port.

No PySyft here: the embedded dashboard becomes a worker in the same way.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import fcntl
import io
import logging
import multiprocessing
import os
import secrets
import signal
import socket
import sys
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import Any

import psutil
import setproctitle

from datasite_worker import folders, secrecy
from datasite_worker.contract import LEASH, LEASH_VARIABLE, ExitCode, probe_key_file

LOG_FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
_LOG_BYTES = 10 * 1024 * 1024
_LOG_BACKUPS = 5
_BACKLOG = 2048
OURS = ("datasite_worker", "central")
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


class ConfigurationFailure(Exception):
    """Something that trying again cannot mend; the message says what and where, for an operator."""


_PASSING = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.ENOMEM,
    errno.EMFILE,
    errno.ENFILE,
    errno.EAGAIN,
    errno.ESTALE,
}


def may_pass(error: BaseException) -> bool:
    """Whether it is of the kind that ends by itself (a full disk, no memory): then trying again is worth while."""
    return isinstance(error, OSError) and error.errno in _PASSING


class PortTaken(ConfigurationFailure):
    """The port cannot be had; the message names its holder where that can be seen."""


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
    if _orphaned():  # looked at with the leash in hand: whoever comes after our supervisor finds us by it
        os._exit(ExitCode.CLEAN)
    _leave_forkserver()
    os.chdir(work_dir)
    _redirect(log_path.with_suffix(".out"))
    setproctitle.setproctitle(title)
    log_to(log_path, console=verbose)


def own_folders(state_dir: Path, work_dir: Path) -> None:
    """Both are there, and nobody else has a hand in them; what PySyft opens in ``state_dir`` is no link. Raises
    folders.Unsafe."""
    folders.make(state_dir)
    folders.check_inside(state_dir)
    folders.make(work_dir)


def become_subreaper() -> None:
    """Orphans below this process become its children (prctl(2))."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep_descendants(state_dir: Path) -> None:
    """All that this process will ever start stays below it while it lives (prctl(2)), and can be told by its leash."""
    become_subreaper()
    leash = _leash(state_dir)
    os.environ[LEASH_VARIABLE] = str(leash)


def _orphaned() -> bool:
    """Whether the supervisor died before we were born: a forkserver that was still busy with its imports then serves
    what it was asked for all the same, and nobody would know of the process, which would keep the port."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()


def _leave_forkserver() -> None:
    """multiprocessing hands every child the pipes by which its forkserver and resource tracker live. Held here they
    would outlive their supervisor, one pair for each that was ever killed."""
    held = ((forkserver._forkserver, "_forkserver_alive_fd"), (resource_tracker._resource_tracker, "_fd"))
    for helper, name in held:  # no public name lets go of them
        fd = getattr(helper, name, None)
        if fd is not None:
            setattr(helper, name, None)
            os.close(fd)


_held: dict[Path, int] = {}


def _leash(state_dir: Path) -> Path:
    """The leash in ``state_dir``, open and inheritable from now on."""
    path = state_dir.absolute() / LEASH
    if path not in _held:
        folders.make(path.parent)
        _held[path] = folders.open_file(path, os.O_RDWR | os.O_CREAT)
        os.set_inheritable(_held[path], True)
    return path


def probe_key(state_dir: Path) -> str:
    """The secret whose holder is told a worker's whole status; drawn where there is none."""
    path = probe_key_file(state_dir)
    with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
        if kept := folders.read_text(path).strip():
            return kept
    folders.write_text(path, secrets.token_hex(32))
    return folders.read_text(path)


def claim(state_dir: Path) -> None:
    """Take the state folder for this process alone, as long as it lives; forked children do not share the claim.

    Raises ConfigurationFailure when another process has it.
    """
    fd = _held[_leash(state_dir)]
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise ConfigurationFailure(
            f"{state_dir} is in use by another process{_owner(fd)}; stop that one, or give another name"
        ) from error
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _owner(fd: int) -> str:
    said = os.pread(fd, 32, 0).decode(errors="replace").strip()
    return f" (pid {said})" if said.isdigit() else ""


def join_cgroup(folder: str) -> str:
    """Put this process into the control group at ``folder``; empty: nowhere. What went wrong, in words, or nothing."""
    if not folder:
        return ""
    try:
        (Path(folder) / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        return f"not in the control group {folder}: {error.strerror or error}; its limits do not hold"
    return ""


_raw: list[Path] = []
"""Where our own raw output goes, once it was redirected."""


def _redirect(raw: Path) -> None:
    """No pipe or terminal may tie a worker to its supervisor: it outlives it."""
    _raw[:] = [raw]
    with open(os.devnull, "rb") as nothing, folders.appended(raw) as output:
        os.dup2(nothing.fileno(), 0)
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open for the life of the process
    sys.stdout, sys.stderr = _text(1), _text(2)
    faulthandler.enable(file=2)


class _Output(io.FileIO):
    """What a full log disk does not take is lost: a print in PySyft, or in user code, must not fail for it."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _text(number: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Output(number, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def trim_output() -> None:
    """Keep the raw output, which user code may print to for months, within the size of a log: its last part is moved
    aside, where there is room. All who write to it append, so that cutting it under them is safe."""
    for raw in _raw:
        if raw.exists() and raw.stat().st_size > _LOG_BYTES:
            with contextlib.suppress(OSError), open(folders.open_file(raw, os.O_RDWR), "rb+") as output:
                with contextlib.suppress(OSError), folders.durable(raw.with_name(f"{raw.name}.1")) as aside:
                    output.seek(-_LOG_BYTES, os.SEEK_END)
                    aside.write(output.read(_LOG_BYTES))
                output.truncate(0)


def end_descendants() -> None:
    """SIGKILL what user code left running: as the subreaper we still have all of it below us."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            child.kill()


def log_to(path: Path, *, console: bool) -> None:
    """Our loggers write to ``path``, and to standard error too with ``console``. PySyft turns the root logger to
    CRITICAL, so ours do not pass through it. Raises folders.Unsafe."""
    logging.raiseExceptions = False  # a full log disk must not stop a datasite
    handlers: list[logging.Handler] = [folders.RotatingLog(path, size=_LOG_BYTES, backups=_LOG_BACKUPS)]
    if console:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
    for name in OURS:
        logger = logging.getLogger(name)
        for old in logger.handlers:
            old.close()
        logger.handlers = list(handlers)
        set_level(logger, logging.DEBUG if console else logging.INFO)
        logger.propagate = False


def set_level(logger: logging.Logger, level: int) -> None:
    """Not by ``setLevel`` where it is so already: that one goes through all loggers there are, which are more than a
    thousand with PySyft, and a forked process that does so copies 4 MB."""
    if logger.level != level:
        logger.setLevel(level)


def own_address(hostname: str) -> str:
    """Where this process reaches what it serves on ``hostname``."""
    return {"localhost": "127.0.0.1", "0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(hostname, hostname)  # noqa: S104 - looked up, not bound


def reachable_name(hostname: str) -> str:
    """What others call a site that listens on ``hostname``: "every interface" is no address for them."""
    return socket.gethostname() if hostname in ("0.0.0.0", "::", "") else hostname  # noqa: S104 - compared, not bound


def bind(hostname: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises PortTaken, or ConfigurationFailure for an address that cannot be bound."""
    host = "127.0.0.1" if hostname == "localhost" else hostname
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise _explained(error, hostname, port) from error
    return listening


def _explained(error: OSError | OverflowError, hostname: str, port: int) -> ConfigurationFailure:
    if isinstance(error, PermissionError):
        return ConfigurationFailure(f"port {port} needs privileges this user has not; take one above 1023")
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return PortTaken(f"port {port} is taken by {_holder(port)}; free it or give another port")
    return ConfigurationFailure(f"cannot listen on {hostname}:{port}: {getattr(error, 'strerror', None) or error}")


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr
                and connection.laddr[1] == port
                and connection.pid
            ):
                return f"pid {connection.pid} ({psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        return "another process"
    return "another process"
