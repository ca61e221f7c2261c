"""Several assets of a dataset are replaced, and read, as a whole: nobody computes with one old and one new array.

PySyft reads the inputs of a function one after the other, in the datasite or in a job's process. A lock on a file keeps
the writer out for these moments. It is held for milliseconds: what the data's own files hold is read later, and the
files of the last version stay. Holds no data, and decides nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import time
from collections.abc import Iterator
from typing import Any

from syft.service.action import action_service
from syft.service.policy import policy
from syft.service.policy.policy import MixedInputPolicy

PATIENCE = 10.0
"""Seconds that a writer waits for those who read; a stopped job could read for ever."""
_AGAIN = 0.01
_NAME = "datasets.lock"


def install() -> None:
    """Once in a process that runs functions; again is no harm."""
    if not hasattr(policy.retrieve_from_db, "whole"):
        policy.retrieve_from_db = action_service.retrieve_from_db = _whole(policy.retrieve_from_db)
        MixedInputPolicy.filter_kwargs = _whole(MixedInputPolicy.filter_kwargs)


def _whole(read: Any) -> Any:
    """``read`` gets all its inputs of one version."""

    @functools.wraps(read)
    def read_whole(*args: Any, **kwargs: Any) -> Any:
        context = kwargs["context"] if "context" in kwargs else args[-1]
        with reading(context.server):
            return read(*args, **kwargs)

    read_whole.whole = True  # type: ignore[attr-defined]
    return read_whole


@contextlib.contextmanager
def reading(server: Any) -> Iterator[None]:
    """Nothing is replaced meanwhile. Others may read."""
    with _opened(server) as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


@contextlib.contextmanager
def replacing(server: Any) -> Iterator[None]:
    """Nobody reads meanwhile. Raises TimeoutError where somebody does not end."""
    with _opened(server) as lock:
        give_up = time.monotonic() + PATIENCE
        while not _taken(lock):
            if time.monotonic() > give_up:
                raise TimeoutError("the data is being read")
            time.sleep(_AGAIN)
        yield


def _taken(lock: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextlib.contextmanager
def _opened(server: Any) -> Iterator[int]:
    """Opened each time: a lock belongs to an open file, and a job's function may fork."""
    path = server.get_temp_dir() / _NAME
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        yield lock
    finally:
        os.close(lock)
