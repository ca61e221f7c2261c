"""Failures that end a worker: some only an operator can fix, others pass by themselves."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

from fleet_common.disks import Space


class KnownFailure(Exception):
    """The message tells the operator all there is to say: what is wrong, and where. No traceback adds to it."""


class ConfigurationFailure(KnownFailure):
    """A restart cannot fix this."""


class NoSpace(KnownFailure):
    """A disk is full. A restart helps once there is space."""


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
_FULL = {errno.ENOSPC, errno.EDQUOT}


_MEMORY = ("cannot allocate memory", "failed to map segment")
"""How libraries say that there is none."""


def in_words(error: BaseException) -> str:
    """The error for people. Names the limit of this process's memory where that is the reason."""
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{said}{memory_limit()}" if _lacks_memory(error) else said


def _lacks_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    return any(words in str(error).lower() for words in _MEMORY)


def memory_limit() -> str:
    """The limit of this process's address space, to go behind an error; empty where there is none."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return ""
    return f"; its address space is limited to {limit // 2**20} MiB (ulimit -v), and PyTorch alone takes several GiB"


def may_pass(error: BaseException) -> bool:
    """Whether the error may pass by itself (a full disk, no memory), so that another try makes sense."""
    return isinstance(error, OSError) and error.errno in _PASSING


def no_space(folder: Path) -> NoSpace:
    """``no space left in /srv/fleet (0 of 2 MB free)``."""
    return NoSpace(f"no space left in {folder} ({Space.of(folder)})")


def says_full(error: BaseException) -> bool:
    """Whether the system said that a disk, or a user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in _FULL
