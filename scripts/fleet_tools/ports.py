"""Free ports that stay free until the caller uses them.

Asking the kernel for port 0 and letting go of it again is a race: another run, or any outgoing connection, may be given
the same one. So each process takes a block of ports below those that the kernel gives away, for as long as it lives,
and hands out each of them once before it starts over. A block is taken by listening on its first port. Where the kernel
gives away all ports, the race is all there is.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

SIZE = 200
LOWEST = 10000


class Exhausted(Exception):
    """No block is left, or no free port in it."""


class Block:
    """The ports of this process: taken at the first question, by whoever asks (a forked child has its own)."""

    def __init__(self) -> None:
        self._owner = 0
        self._first = 0
        self._next = 0
        self._flag: socket.socket | None = None

    def ports(self, count: int) -> list[int]:
        if self._owner != os.getpid():
            self._take()
        found: list[int] = []
        for _ in range(SIZE):
            self._next = self._next % (SIZE - 1) + 1
            if _is_free(port := self._first + self._next):
                found.append(port)
            if len(found) == count:
                return found
        raise Exhausted(f"cannot find {count} free ports among the {SIZE} of this process")

    def _take(self) -> None:
        for first in range(LOWEST, _given_away() - SIZE + 1, SIZE):
            try:
                self._flag = _listening(first)
            except OSError:
                continue
            self._owner, self._first, self._next = os.getpid(), first, 0
            return
        raise Exhausted(f"every block of {SIZE} ports from {LOWEST} up to {_given_away()} is in use")


def _given_away() -> int:
    """The lowest port that the kernel gives to whoever asks for any."""
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def _listening(port: int) -> socket.socket:
    """Listen on the port unless another socket does; without SO_REUSEADDR, so that only one can."""
    made = socket.socket()
    try:
        made.bind(("0.0.0.0", port))  # noqa: S104 - whoever listens on any address has it
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("0.0.0.0", port)).close()  # noqa: S104 - the same
    except OSError:
        return False
    return True


_block = Block()


def free_ports(count: int) -> list[int]:
    """Ports that no other process uses. One is given out again only after all others of this process."""
    try:
        return _block.ports(count)
    except Exhausted:
        return _of_the_kernel(count)


def _of_the_kernel(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def listens(port: int) -> bool:
    """Whether a process on this machine listens on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
