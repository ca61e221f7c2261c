"""Processes, ports, files and time, as the suite sees them. Looks and waits; decides nothing, kills nobody."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
_LOOK = 0.05
_OF_EACH_LAUNCH = 2


class Broken(Exception):
    """A promise was not kept; the text says which."""


class Nothing(Exception):
    """There was nothing to break, or no way to; the text says why. The strike does not count."""


def until(what: Callable[[], T | None], ceiling: float, wanted: str) -> T:
    """The first true answer of ``what``. Raises Broken after ``ceiling`` seconds."""
    give_up = time.monotonic() + ceiling
    while not (answer := what()):
        if time.monotonic() > give_up:
            raise Broken(f"{wanted}: not within {ceiling:g} s")
        time.sleep(_LOOK)
    return answer


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def alive(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def describe(pid: int) -> str:
    """``4711 (fleet: alpha)``, for people."""
    try:
        process = psutil.Process(pid)
        return f"{pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    except psutil.Error:
        return str(pid)


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


def inhabitants(folders: Iterable[Path]) -> list[int]:
    """The living processes that work in one of ``folders``."""
    return [process.pid for process in psutil.process_iter() if _works_in(process, [str(one) for one in folders])]


def _works_in(process: psutil.Process, folders: list[str]) -> bool:
    try:
        place = process.cwd().removesuffix(" (deleted)")
        alive = process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, OSError):
        return False
    return alive and any(place == folder or place.startswith(f"{folder}/") for folder in folders)


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
