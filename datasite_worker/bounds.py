"""Bounds of a datasite's HTTP: how many connections, how long headers and bodies may take, how large a body may be.

Knows nothing of PySyft, and does not look at what a request means; ``pysyft.routes`` says which connection is a user's.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.responses import PlainTextResponse
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Address = tuple[str, int]

MOST = 512
"""Connections at the same time."""
OWN = 32
"""More of them for this host itself, so that a flood from elsewhere does not keep the supervisor's probes out."""
ANONYMOUS = 64
"""Connections of one address that no user is known to be behind."""
HEADERS = 10.0
"""Seconds for a request's line and headers, from the connection on or from its first byte."""
SILENCE = 15.0
"""Seconds without a byte of a body that was announced."""
GRACE, SLOWEST = 30.0, 8 * 1024
"""A body may take so many seconds, and one more for each so many bytes."""
TAKING = 60.0
"""Seconds in which a client has to take a piece of the answer."""
SMALL = 64 * 1024
"""Bytes of a body, where a route has no other limit."""
_PIECE = 64 * 1024
_LOOPBACK = ("127.", "::1")
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-type: text/plain\r\n"
    b"content-length: 27\r\n\r\ntoo many connections; later"
)


class Connections:
    """The connections there are, by the address they come from. Used from one event loop; ``vouch`` from any thread."""

    def __init__(self, most: int = MOST, anonymous: int = ANONYMOUS) -> None:
        self._most, self._anonymous = most, anonymous
        self._open: dict[Address, Any] = {}
        self._known: set[Address] = set()
        self._strangers: Counter[str] = Counter()

    def admit(self, client: Address, transport: Any) -> bool:
        """Whether there is room for one more from there; it counts from now on."""
        own = client[0].startswith(_LOOPBACK)
        if len(self._open) >= self._most + OWN * own or self._strangers[client[0]] >= self._anonymous + OWN * own:
            return False
        self._open[client] = transport
        self._strangers[client[0]] += 1
        return True

    def vouch(self, client: Address | None) -> None:
        """A user is behind that connection."""
        if client in self._open and client not in self._known:
            self._known.add(client)
            self._fewer(client[0])

    def left(self, client: Address) -> None:
        if client not in self._open:
            return
        del self._open[client]
        if client in self._known:
            self._known.discard(client)
        else:
            self._fewer(client[0])

    def cut(self, client: Address | None) -> None:
        """End it now, whatever has not been sent."""
        if client in self._open:
            self._open[client].abort()

    def _fewer(self, host: str) -> None:
        self._strangers[host] -= 1
        if not self._strangers[host]:
            del self._strangers[host]


class Bounded(HttpToolsProtocol):
    """uvicorn's HTTP, whose connections are counted, and have to say what they want in time; see ``protocol``."""

    admitted: Connections
    patience: float = HEADERS
    _due: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self.client is None or not self.admitted.admit(self.client, transport):
            transport.write(_FULL)
            transport.close()
            return
        self._due = self.loop.call_later(self.patience, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_answering():
            self._in_time()
        elif self._due is None and not self.transport.is_closing():
            self._due = self.loop.call_later(self.patience, self.transport.abort)

    def _is_answering(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return cycle is not None and not cycle.response_complete

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
    """A body is larger than its route takes."""


class TooSlow(Exception):
    """A body did not come in time."""


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
    """The body's size as its sender says; 0 where he does not."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value[:20])
    return 0


def _refusal(why: Exception, limit: int) -> PlainTextResponse:
    if isinstance(why, TooLarge):
        return PlainTextResponse(f"this datasite takes at most {limit} bytes here", status_code=413)
    return PlainTextResponse("the request did not come in time", status_code=408, headers={"connection": "close"})


class _Body:
    """What of a body has come, and how long that was waited for. Time that the application takes does not count."""

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
    """A long body in several messages, so that it does not pass in one rush."""
    body = message.get("body", b"")
    if message["type"] != "http.response.body" or len(body) <= _PIECE:
        return [message]
    view = memoryview(body)
    cut = [bytes(view[at : at + _PIECE]) for at in range(0, len(body), _PIECE)]
    parts: list[Mapping[str, Any]] = [{**message, "body": piece, "more_body": True} for piece in cut]
    parts[-1] = {**parts[-1], "more_body": message.get("more_body", False)}
    return parts
