"""The one wait of the engine: exits (pidfd), pulses, signals and what other threads post, in one ``epoll``.

It decides nothing. It returns what happened in this order: posted, pulses, exits. So it reads the last status of a
worker before its exit.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet_common import folders
from fleet_common.contract import LARGEST_PULSE, StatusDocument, parse_status
from fleet_common.unix_path import short_path
from supervisor.messages import Exited, Message, Signalled

_AT_ONCE = 64
"""Pulses of one turn: whoever sends more must not keep the engine from its other work."""
_Reader = Callable[[], list[Message]]


class Inbox:
    """Create it in the main thread. Any thread may call ``post``; everything else is for the engine only."""

    def __init__(self, pulse_path: Path) -> None:
        self._selector = selectors.EpollSelector()
        self._posted: deque[Message] = deque()
        self._ringing = threading.Lock()  # taken by threads that ring the bell, and by ``close``
        self._closed = False
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._signal_read, self._signal_write = socket.socketpair()
        self._pulses = _pulse_socket(pulse_path)
        self._pulse_path = pulse_path
        for end in (self._signal_read, self._signal_write):
            end.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ, self._read_bell)
        self._selector.register(self._pulses, selectors.EVENT_READ, self._read_pulses)
        self._selector.register(self._signal_read, selectors.EVENT_READ, self._read_signals)

    def post(self, message: Message) -> None:
        """Has no effect after ``close``: a thread may live a moment longer."""
        self._posted.append(message)
        self.ring()

    def ring(self) -> None:
        """End the wait, from any thread, without a message."""
        with self._ringing:
            if not self._closed:
                os.eventfd_write(self._bell, 1)

    def reopen(self) -> None:
        """Listen for pulses again, where somebody has removed the socket. Raises OSError, and then changes nothing."""
        again = _pulse_socket(self._pulse_path)
        self._selector.unregister(self._pulses)
        self._pulses.close()
        self._pulses = again
        self._selector.register(self._pulses, selectors.EVENT_READ, self._read_pulses)

    def catch(self, *numbers: signal.Signals) -> None:
        """Turn these signals into ``Signalled`` messages. The handler itself does nothing: the C layer writes the
        number into the socket pair, so that no work is ever done inside a signal handler."""
        signal.set_wakeup_fd(self._signal_write.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _do_nothing)

    def watch(self, name: str, generation: int, pid: int, pidfd: int) -> None:
        """Report the exit of the process behind ``pidfd`` (the inbox closes it then)."""

        def gone() -> list[Message]:
            self._selector.unregister(pidfd)
            os.close(pidfd)
            return [Exited(name, generation, pid)]

        self._selector.register(pidfd, selectors.EVENT_READ, gone)

    def wait(self, timeout: float | None) -> list[Message]:
        """Sleep until something happens or ``timeout`` seconds have passed; returns what happened, oldest kind
        first."""
        ready: list[_Reader] = [key.data for key, _ in self._selector.select(timeout)]
        ready.sort(key=self._rank)
        return [message for read in ready for message in read()]

    def _rank(self, read: _Reader) -> int:
        order: list[_Reader] = [self._read_bell, self._read_signals, self._read_pulses]
        return order.index(read) if read in order else len(order)

    def _read_bell(self) -> list[Message]:
        os.eventfd_read(self._bell)
        return [self._posted.popleft() for _ in range(len(self._posted))]

    def _read_signals(self) -> list[Message]:
        return [Signalled(signal.Signals(number).name) for number in self._signal_read.recv(4096)]

    def _read_pulses(self) -> list[Message]:
        """A stray datagram says nothing. Only this user can send one, but so can the code that a datasite runs."""
        raw = [one for _ in range(_AT_ONCE) if (one := _receive(self._pulses)) is not None]
        heard = (parse_status(one, LARGEST_PULSE) for one in raw)
        return [status for status in heard if isinstance(status, StatusDocument)]

    def close(self) -> None:
        signal.set_wakeup_fd(-1)
        self._pulse_path.unlink(missing_ok=True)
        for resource in (self._selector, self._pulses, self._signal_read, self._signal_write):
            resource.close()
        with self._ringing:
            self._closed = True
            os.close(self._bell)


def _do_nothing(number: int, frame: Any) -> None:
    pass


def _receive(pulses: socket.socket) -> bytes | None:
    """The next datagram; None: there is none now."""
    try:
        return pulses.recv(LARGEST_PULSE + 1)
    except OSError:
        return None


def _pulse_socket(path: Path) -> socket.socket:
    """Binds again: it removes the socket of an earlier supervisor, and its workers find this one under the same
    name."""
    folders.make_way(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    os.fchmod(listening.fileno(), folders.PRIVATE_FILE)  # so the name has that mode from its first moment
    with short_path(path) as address:
        listening.bind(address)
    return listening
