"""What stands between client and datasite in a test: passes bytes on, keeps them, and can do so behind TLS. And what
PySyft's messages among those bytes hold, to the last number."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import torch

_KEY = 64
"""Bytes; the size of a signature. Whatever is longer has to be understood."""


class Wire:
    """Listens on ``port`` and passes on to ``target``; keeps what each connection said and heard."""

    def __init__(self, target: int, context: ssl.SSLContext | None = None) -> None:
        self._target = target
        self._context = context
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.sent: list[bytearray] = []
        self.received: list[bytearray] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def bodies(self) -> list[bytes]:
        """The body of every request and answer that crossed."""
        return [body for stream in (*self.sent, *self.received) for body in _bodies(bytes(stream))]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            near = self._context.wrap_socket(client, server_side=True) if self._context else client
            far = socket.create_connection(("127.0.0.1", self._target))
            self.sent.append(bytearray())
            self.received.append(bytearray())
            threading.Thread(target=_pass_on, args=(far, near, self.received[-1]), daemon=True).start()
            _pass_on(near, far, self.sent[-1])


def _pass_on(source: socket.socket, sink: socket.socket, kept: bytearray) -> None:
    with contextlib.suppress(OSError):
        while some := source.recv(65536):
            kept += some
            sink.sendall(some)
    for one in (sink, source):
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def wire(target: int, context: ssl.SSLContext | None = None) -> Iterator[Wire]:
    made = Wire(target, context)
    try:
        yield made
    finally:
        made.close()


def _bodies(stream: bytes) -> Iterator[bytes]:
    """The bodies in a stream of HTTP messages, all of which name their length."""
    while stream:
        head, _, rest = stream.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        lengths = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")]
        assert not any(line.startswith(b"transfer-encoding:") for line in lines), "a body of unknown length"
        length = lengths[0] if lengths else 0
        assert len(rest) >= length, "a message was cut"
        yield rest[:length]
        stream = rest[length:]


@dataclass
class Content:
    """All that lies in PySyft's messages: ``numbers`` (each array flat, as float64), ``texts``, and ``opaque``: bytes
    that are no message and longer than a key, so that nobody can say what they hold."""

    numbers: list[np.ndarray[Any, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    opaque: list[bytes] = field(default_factory=list)
    _seen: dict[int, Any] = field(default_factory=dict)

    def values(self) -> set[float]:
        return {float(one) for array in self.numbers for one in array}

    def add(self, thing: Any) -> None:
        """Take in ``thing``, and all that it holds."""
        if id(thing) in self._seen or thing is None or isinstance(thing, Enum | type):
            return
        self._seen[id(thing)] = thing
        if isinstance(thing, torch.Tensor):
            thing = thing.numpy()
        if isinstance(thing, np.ndarray) or (np.isscalar(thing) and not isinstance(thing, str | bytes)):
            self.numbers.append(np.asarray(thing).astype("float64").ravel())
        elif isinstance(thing, str):
            self.texts.append(thing)
        elif isinstance(thing, bytes | bytearray):
            self._add_bytes(bytes(thing))
        else:
            self._add_parts(thing)

    def _add_bytes(self, raw: bytes) -> None:
        import syft as sy

        if len(raw) <= _KEY:
            return
        try:
            self.add(sy.deserialize(raw, from_bytes=True))
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is no message
            self.opaque.append(raw)

    def _add_parts(self, thing: Any) -> None:
        if isinstance(thing, dict):
            parts = [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            parts = list(thing)
        else:
            parts = list(getattr(thing, "__dict__", {}).values())
        for part in parts:
            self.add(part)


def content(bodies: list[bytes]) -> Content:
    """What these bodies hold. JSON bodies (login, metadata) are texts."""
    made = Content()
    for body in bodies:
        if body[:1] == b"{":
            made.texts.append(body.decode())
        else:
            made.add(body)
    return made
