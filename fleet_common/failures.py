"""Failures that end a worker: some only an operator can fix, others pass by themselves."""

from __future__ import annotations

import errno


class ConfigurationFailure(Exception):
    """A restart cannot fix this. The message tells the operator what is wrong, and where."""


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
    """Whether the error may pass by itself (a full disk, no memory), so that another try makes sense."""
    return isinstance(error, OSError) and error.errno in _PASSING
