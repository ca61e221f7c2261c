"""Processes and files, as the suite sees them. It looks; it decides nothing and kills nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil

from fleet_tools.waiting import Trouble

_OF_EACH_LAUNCH = 2


class Broken(Trouble):
    """A promise was not kept; the text says which."""


class Nothing(Exception):
    """There was nothing to break, or no way to; the text says why. The strike does not count."""


def descendants(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def helpers(workers: Iterable[int]) -> Iterator[int]:
    """The forkservers that forked ``workers``, and as many resource trackers: each forkserver came with one."""
    servers = {parent for pid in workers if (parent := _parent(pid)) and _runs(parent, "multiprocessing.forkserver")}
    places = {_place(server) for server in servers}
    yield from servers
    trackers = [pid for pid in psutil.pids() if _runs(pid, "multiprocessing.resource_tracker")]
    yield from [pid for pid in trackers if _place(pid) in places][: len(servers) + 1]


def _parent(pid: int) -> int:
    try:
        return int(psutil.Process(pid).ppid())
    except psutil.Error:
        return 0


def _runs(pid: int, module: str) -> bool:
    try:
        return module in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False


def _place(pid: int) -> str:
    try:
        return str(psutil.Process(pid).cwd())
    except (psutil.Error, OSError):
        return ""


def zombies(parents: Iterable[int]) -> list[str]:
    """``pid of parent``, for every dead child that one of ``parents`` has not reaped."""
    return [f"{dead} of {parent}" for parent in parents for dead in _dead_children(parent)]


def _dead_children(parent: int) -> Iterator[int]:
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.Error):
                if child.status() == psutil.STATUS_ZOMBIE:
                    yield child.pid


def open_files(supervisor: int, workers: Iterable[int]) -> int | None:
    """How many file descriptors the supervisor has open, but for those of the processes that it launched itself: both
    ends of a pipe each, which it needs for none that it adopted. None when it is gone."""
    try:
        count = len(list(Path(f"/proc/{supervisor}/fd").iterdir()))
    except OSError:
        return None
    return count - _OF_EACH_LAUNCH * len(set(workers) & set(descendants(supervisor)))


def sockets(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_socket()]
