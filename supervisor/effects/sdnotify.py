"""Sends datagrams to the service manager at ``$NOTIFY_SOCKET``, as in sd_notify(3). Decides nothing.

Without a service manager every call does nothing. None raises and none blocks: a busy or dead manager must not hold up
the loop that keeps the datasites alive. Each call tells whether the kernel took the message; a lost READY can be sent
again.

Our own few lines, as no package earns its place: sdnotify has had no release since 2017, systemd-watchdog sends on a
blocking socket, raises, and knows neither RELOADING nor STOPPING; systemd-python has to be compiled against libsystemd,
and cysystemd carries its own copies of libsystemd and libgcrypt, where the protocol is one ``sendto``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

LONGEST_STATUS = 1000
"""Bytes. systemd drops a message above 4096 whole."""


class Notifier:
    """``address`` None: nobody listens. ``watchdog_interval``: seconds between two feeds; None: no watchdog."""

    def __init__(self, address: str | None, watchdog_interval: float | None = None) -> None:
        self.watchdog_interval = watchdog_interval if address else None
        self._address = _socket_address(address)
        self._socket = _open() if self._address else None
        self._shown: str | None = None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], pid: int | None = None) -> Notifier:
        """What the service manager put into ``environ``. Call this before that is scrubbed. ``pid``: ours, when
        None."""
        return cls(environ.get("NOTIFY_SOCKET"), _interval(environ, os.getpid() if pid is None else pid))

    @property
    def enabled(self) -> bool:
        return self._socket is not None

    def ready(self, status: str) -> bool:
        """The start, or the reload in progress, is complete."""
        return self._tell(status, "READY=1")

    def status(self, text: str) -> bool:
        """What ``systemctl status`` shows. The same text again costs nothing."""
        return text == self._shown or self._tell(text)

    def watchdog(self) -> bool:
        return self._send("WATCHDOG=1")

    def reloading(self, monotonic_usec: int) -> bool:
        """A reload begins; ``ready`` ends it. ``monotonic_usec``: CLOCK_MONOTONIC of now, in microseconds."""
        return self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_usec}")

    def stopping(self, status: str = "stopping") -> bool:
        """From now on the manager's limit for a stop applies, and the loop feeds the watchdog no more."""
        return self._tell(status, "STOPPING=1", "WATCHDOG_USEC=0")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, status: str, *assignments: str) -> bool:
        sent = self._send(*assignments, f"STATUS={_one_line(status)}")
        self._shown = status if sent else None
        return sent

    def _send(self, *assignments: str) -> bool:
        """Whether the kernel took it."""
        if self._socket is None or self._address is None:
            return False
        try:
            self._socket.sendto("\n".join(assignments).encode("utf-8", "replace"), self._address)
        except OSError:
            return False
        return True


def _interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Half of what the manager allows, as sd_watchdog_enabled(3) advises; None when it is meant for another process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    allowed = environ.get("WATCHDOG_USEC", "")
    return int(allowed) / 2e6 if allowed.isascii() and allowed.isdigit() and int(allowed) > 0 else None


def _socket_address(address: str | None) -> bytes | None:
    """A path, or ``@`` for a name in the abstract namespace. Others (vsock) are for guests of a virtual machine."""
    if not address or address[0] not in "/@" or len(address) < 2:
        return None
    raw = os.fsencode(address)
    return b"\0" + raw[1:] if raw[:1] == b"@" else raw


def _open() -> socket.socket | None:
    try:
        return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    except OSError:
        return None


def _one_line(text: str) -> str:
    """A line break would start another assignment, and ``text`` contains words of workers."""
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    raw = printable.encode("utf-8", "replace")
    return printable if len(raw) <= LONGEST_STATUS else raw[: LONGEST_STATUS - 3].decode("utf-8", "ignore") + "…"
