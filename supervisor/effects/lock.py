"""One supervisor per state folder: a lock that the kernel releases when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from fleet_common import folders, state_files
from fleet_common.untrusted import Pid


def lock(path: Path) -> int | None:
    """Take the fleet's lock for as long as this process lives; None when another has it."""
    fd = _opened(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    with contextlib.suppress(OSError):  # a full or read-only disk: the lock holds, and only the pid is missing
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
    return fd


def _opened(path: Path) -> int:
    try:
        return folders.open_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return folders.open_file(path, os.O_RDONLY)


def lock_holder(path: Path) -> int | None:
    """The pid in the lock file; None when it holds none. An operator may be told to kill it."""
    pid = state_files.read(path, Pid)
    return pid if isinstance(pid, int) else None
