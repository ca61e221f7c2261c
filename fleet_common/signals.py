"""Sends signals. Nothing else in the product may: a wrong number here ends what is not ours.

A process is its pid and its start time together. A pid alone may be another's by now, so every function here either
checks the start time, or that the process is a child of ours whose exit nobody has collected: the kernel does not use
the number of such a child again. To kill(2), 1 is init, and 0 and -1 mean whole groups and everybody: they are refused,
and so is our own group.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

logger = logging.getLogger(__name__)

_DEAD = (b"Z", b"X")
_LARGEST = 2**22  # the kernel's PID_MAX_LIMIT
_SWEEPS = 100


# --- which process it is ---


def stat_fields(pid: int) -> list[bytes] | None:
    """The fields of proc(5) stat from the third, the state, on. Read plainly: a sweep asks it of every process."""
    try:
        stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        raw = os.read(stat, 4096)
    except OSError:
        return None  # gone between the two
    finally:
        os.close(stat)
    return raw[raw.rindex(b")") + 2 :].split() if b")" in raw else None


def start_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (field 22 of proc(5) stat); None when there is none."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else None


def is_zombie(pid: int) -> bool:
    return (fields := stat_fields(pid)) is not None and fields[0] in _DEAD


def is_same(pid: int, created: int) -> bool:
    """Whether ``pid`` still is the living process that began at ``created``."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in _DEAD and int(fields[19]) == created


def lives_since(pid: int, ticks: int) -> int | None:
    """When the process began, if it is no zombie and began at ``ticks`` or later."""
    fields = stat_fields(pid)
    if fields is None or fields[0] in _DEAD or int(fields[19]) < ticks:
        return None
    return int(fields[19])


# --- any process ---


def send(pid: int, created: int, number: signal.Signals) -> bool:
    """Signal the process that began at ``created``; whether it was there."""
    with _held(pid, created) as handle:
        return handle is not None and _through(handle, number)


def send_group(pid: int, created: int, number: signal.Signals) -> bool:
    """Signal the process and all of its group; only the process, if it does not lead one."""
    with _held(pid, created) as handle:
        if handle is None:
            return False
        if _group_of(pid) != pid:
            return _through(handle, number)
        return _to_group(pid, number)


def sweep_group(pid: int, created: int) -> None:
    """SIGKILL all that the process, which has ended, left in its group. What began before it is not its own."""
    if created <= 0 or not _may(pid) or start_ticks(pid) not in (None, created):  # else the number is another's by now
        return
    for _ in range(_SWEEPS):  # what is killed may fork until then
        left = [one for one in psutil.pids() if one != pid and _left_by(one, pid, created)]
        if not [send(one, began, signal.SIGKILL) for one in left if (began := start_ticks(one)) is not None]:
            return


def _left_by(one: int, leader: int, created: int) -> bool:
    fields = stat_fields(one)
    if fields is None or fields[0] in _DEAD:
        return False
    return leader in (int(fields[2]), int(fields[3])) and int(fields[19]) >= created


@contextmanager
def _held(pid: int, created: int) -> Iterator[int | None]:
    """A descriptor of the process: while it is open, the number means no other one. None: it is gone, or refused."""
    handle = _opened(pid)
    try:
        yield handle if handle is not None and start_ticks(pid) == created else None
    finally:
        if handle is not None:
            os.close(handle)


def _opened(pid: int) -> int | None:
    if not _may(pid):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _may(pid: int) -> bool:
    if type(pid) is int and 1 < pid <= _LARGEST and pid not in (os.getpid(), os.getpgrp()):
        return True
    logger.error("refused to send a signal to process %r: it cannot be a worker", pid)
    return False


def _through(handle: int, number: signal.Signals) -> bool:
    return _sent(signal.pidfd_send_signal, handle, number)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def _to_group(pid: int, number: signal.Signals) -> bool:
    return _sent(os.killpg, pid, number)


def _sent(send: Callable[[int, int], None], to: int, number: signal.Signals) -> bool:
    try:
        send(to, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


# --- our own children ---


def to_child(pid: int, number: signal.Signals) -> bool:
    """Signal a child of ours; whether it was one. A child that has ended, but is not collected yet, counts."""
    return _may(pid) and _is_child(pid) and _sent(os.kill, pid, number)


def to_childs_group(pid: int, number: signal.Signals) -> bool:
    """The same for the whole group that the child leads, and for the child if it leads none yet."""
    led = _may(pid) and _is_child(pid) and _to_group(pid, number)
    return to_child(pid, number) or led


def _is_child(pid: int) -> bool:
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
