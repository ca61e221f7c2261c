"""Bounds of a datasite's HTTP: how many connections, how long headers and bodies may take, how large a body may be.

Knows nothing of PySyft or of what a request means. ``pysyft.routes`` says which connection belongs to a user.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Address = tuple[str, int]

MOST = 512
"""How many connections may be open at the same time."""
OWN = 32
"""Extra connections for this host, so that a flood from elsewhere does not block the supervisor's probes."""
ANONYMOUS, TRUSTED = 64, 256
"""Connections per address that are not known to be a user's. ``TRUSTED`` holds for an address that a user came from: a
later call or upload from there is known to be a user's only once it has arrived completely."""
HEAD = 64 * 1024
"""Bytes of a request without its body: request line, headers, and the framing of the body."""
_MOST_ADDRESSES = 1000
HEADERS = 10.0
"""Seconds within which a request's line and headers must arrive, counted from the connection or the first byte."""
SILENCE = 15.0
"""Seconds that a body may pause."""
GRACE, SLOWEST = 30.0, 8 * 1024
"""A body may take ``GRACE`` seconds, plus one second for each ``SLOWEST`` bytes."""
TAKING = 60.0
"""Seconds within which a client must accept a piece of the answer."""
SMALL = 64 * 1024
"""Largest body in bytes, where a route sets no other limit."""
MOST_UNDER_WAY = 4 * 10**9
"""Largest total size, in bytes, of all calls' bodies in progress."""
_PIECE = 64 * 1024
_LOOPBACK = ("127.", "::1")
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 37\r\n\r\ntoo many connections; try again later"
)


class Connections:
    """The open connections, by client address. Safe to use from any thread."""

    def __init__(self, most: int = MOST, anonymous: int = ANONYMOUS) -> None:
        self._most, self._anonymous = most, anonymous
        self._lock = threading.Lock()
        self._trusted: OrderedDict[str, None] = OrderedDict()
        self._open: dict[Address, Any] = {}
        self._known: set[Address] = set()
        self._strangers: Counter[str] = Counter()

    def admit(self, client: Address, transport: Any) -> bool:
        """Whether another connection from there is allowed. If so, it is counted."""
        host = client[0]
        more = OWN if host.startswith(_LOOPBACK) else 0
        with self._lock:
            may = TRUSTED if host in self._trusted else self._anonymous
            if len(self._open) >= self._most + more or self._strangers[host] >= may + more:
                return False
            self._open[client] = transport
            self._strangers[host] += 1
            return True

    def vouch(self, client: Address | None) -> None:
        """Record that a user has that connection."""
        with self._lock:
            if client is None or client not in self._open:
                return
            self._trust(client[0])
            if client not in self._known:
                self._known.add(client)
                self._fewer(client[0])

    def _trust(self, host: str) -> None:
        self._trusted[host] = None
        self._trusted.move_to_end(host)
        if len(self._trusted) > _MOST_ADDRESSES:
            self._trusted.popitem(last=False)

    def left(self, client: Address) -> None:
        with self._lock:
            if client not in self._open:
                return
            del self._open[client]
            if client in self._known:
                self._known.discard(client)
            else:
                self._fewer(client[0])

    def cut(self, client: Address | None) -> None:
        """Close the connection now, even if an answer is incomplete."""
        if client is not None and (transport := self._open.get(client)) is not None:
            transport.abort()

    def _fewer(self, host: str) -> None:
        self._strangers[host] -= 1
        if not self._strangers[host]:
            del self._strangers[host]


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP protocol with counted connections and a time limit for headers; see ``protocol``."""

    admitted: Connections
    patience: float = HEADERS
    _due: asyncio.TimerHandle | None = None
    _head = 0  # bytes of the request at hand, its body not counted

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.client is None or not self.admitted.admit(self.client, transport):
            transport.write(_FULL)
            transport.close()
            return
        self._due = self.loop.call_later(self.patience, transport.abort)

    def data_received(self, data: bytes) -> None:
        self._head += len(data)
        super().data_received(data)
        if self._head > HEAD:
            self.transport.abort()
        elif self._is_answering():
            self._in_time()
        elif self._due is None and not self.transport.is_closing():
            self._due = self.loop.call_later(self.patience, self.transport.abort)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

    def on_body(self, body: bytes) -> None:
        self._head -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._in_time()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        if self.client is not None:
            self.admitted.left(self.client)
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None


def protocol(connections: Connections, headers: float = HEADERS) -> type[Bounded]:
    """``Bounded`` by these ``connections``: uvicorn makes one for each connection, and asks for a class."""
    return type("Bounded", (Bounded,), {"admitted": connections, "patience": headers})


class TooLarge(Exception):
    """A body is larger than its route allows."""


class NoRoom(Exception):
    """Another large body would need too much memory now."""


class Room:
    """Limits the memory of all large bodies together. Used from one event loop."""

    def __init__(self, most: int = MOST_UNDER_WAY) -> None:
        self._most, self._taken = most, 0

    @contextmanager
    def for_body(self, size: int) -> Iterator[None]:
        """Reserve ``size`` bytes for a body. A single body may have any size. Raises NoRoom."""
        if self._taken and self._taken + size > self._most:
            raise NoRoom
        self._taken += size
        try:
            yield
        finally:
            self._taken -= size


class TooSlow(Exception):
    """A body did not arrive in time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """ASGI middleware: bodies within ``limits`` (bytes, by path; ``SMALL`` elsewhere), and within their time."""

    app: Any
    limits: Mapping[str, int]
    connections: Connections

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client, started = scope.get("client"), False
        limit = self.limits.get(scope["path"], SMALL)

        async def sent(message: Any) -> None:
            nonlocal started
            started = True
            await self._sent(message, send, client)

        if announced(scope) > limit:
            await _refusal(TooLarge(), limit)(scope, receive, send)
            return
        try:
            await self.app(scope, _Body(receive, limit).receive, sent)
        except (TooLarge, TooSlow) as why:
            if started:
                self.connections.cut(client)
                return
            await _refusal(why, limit)(scope, receive, send)

    async def _sent(self, message: Any, send: Callable[[Any], Awaitable[None]], client: Any) -> None:
        for piece in pieces(message):
            try:
                async with asyncio.timeout(TAKING):
                    await send(piece)
            except TimeoutError:
                self.connections.cut(client)
                raise TooSlow from None


def announced(scope: Any) -> int:
    """The body's size as announced by the client; 0 if not announced."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _refusal(why: Exception, limit: int) -> PlainTextResponse:
    if isinstance(why, TooLarge):
        return PlainTextResponse(
            str(why) or f"the body is too large: this datasite accepts at most {limit} bytes here", status_code=413
        )
    return PlainTextResponse("the request did not arrive in time", status_code=408, headers={"connection": "close"})


class _Body:
    """Counts the bytes of a body and the time spent waiting for them. The application's own time does not count."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._got, self._waited, self._over = 0, 0.0, False

    async def receive(self) -> Any:
        if self._over:
            return await self._receive()
        message = await self._next()
        self._got += len(message.get("body", b""))
        self._over = not message.get("more_body", False)
        if self._got > self._limit:
            raise TooLarge
        if not self._over and self._waited > GRACE + self._got / SLOWEST:
            raise TooSlow
        return message

    async def _next(self) -> Any:
        began = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE):
                return await self._receive()
        except TimeoutError:
            raise TooSlow from None
        finally:
            self._waited += time.monotonic() - began


def pieces(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Splits a long body into several messages, so that a bandwidth limit can act."""
    body = message.get("body", b"")
    if message["type"] != "http.response.body" or len(body) <= _PIECE:
        return [message]
    view = memoryview(body)
    cut = [bytes(view[at : at + _PIECE]) for at in range(0, len(body), _PIECE)]
    parts: list[Mapping[str, Any]] = [{**message, "body": piece, "more_body": True} for piece in cut]
    parts[-1] = {**parts[-1], "more_body": message.get("more_body", False)}
    return parts
