"""Failures that a worker ends with: those that only an operator can mend, and those that pass by themselves."""

from __future__ import annotations

import errno


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
