"""``GET /events``: changes as server-sent events, made once for all listeners.

One producer updates the status of silent factories at their deadlines, and turns changes into frames, at most two a
second. A listener gets a snapshot, then the frames. One that falls behind, or reconnects too late, gets a new snapshot.
So the server keeps only a position for each listener. The number of listeners and the bytes of the frames are limited.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from central.dashboard.liveness import Now
from central.dashboard.roster import Roster, iso

MOST_LISTENERS = 64
GATHER = 0.5
"""The shortest time between two frames, in seconds."""
PING = 10.0
"""The longest time without a frame, in seconds. A listener gets a ping when nothing changes."""
_FRAMES = 120
_MOST_BYTES = 16 * 1024 * 1024
"""Bytes of all kept frames. When more changes at once, every listener gets a snapshot instead."""
_STALLED = 30.0


class TooMany(Exception):
    """The dashboard accepts no more listeners at the moment."""


class Feed:
    """``run`` produces frames until cancelled. Call ``stir`` after each change of the roster."""

    def __init__(self, roster: Roster, now: Callable[[], Now], changed: Callable[[], None]) -> None:
        """``changed`` is called when a deadline changed a status, which must be written."""
        self._roster = roster
        self._now = now
        self._changed = changed
        self._life = os.urandom(4).hex()
        self._frames: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._number = 0
        self._listeners = 0
        self._asleep = False
        self._stirred = asyncio.Event()
        self._published = asyncio.Event()
        self._ping_due = 0.0
        self.closed = False

    def stir(self) -> None:
        """Wakes the producer if there is anything to do before its next deadline."""
        if self._listeners or self._asleep:
            self._stirred.set()

    def close(self) -> None:
        """End every listener's stream."""
        self.closed = True
        self._published.set()

    async def run(self) -> None:
        while not self.closed:
            now = self._now()
            if (deadline := self._roster.next_deadline()) is not None and deadline <= now.tick:
                self._roster.advance(now)
                self._changed()
            if self._listeners:
                self._produce(now)
                await asyncio.sleep(GATHER)
            await self._sleep()

    async def _sleep(self) -> None:
        """Sleep until a deadline. If there are listeners: or until something changes or a ping is due."""
        ends = (self._roster.next_deadline(), self._ping_due if self._listeners else None)
        dues = [end for end in ends if end is not None]
        patience = max(0.0, min(dues) - self._now().tick) if dues else None
        self._asleep = not dues
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stirred.wait(), patience)
        self._asleep = False
        self._stirred.clear()

    def _produce(self, now: Now) -> None:
        if names := self._roster.take_changed():
            changed = self._changed_alone(names)
            if changed is None:
                self._require_snapshot()
                self._wake()
                return
            self._publish(b"change", b'{"now":"%b","factories":[%b]}' % (iso(now.wall).encode(), changed), now)
        elif now.tick >= self._ping_due:
            self._publish(b"ping", b'{"now":"%b"}' % iso(now.wall).encode(), now)

    def _changed_alone(self, names: Iterable[str]) -> bytes | None:
        """These factories as JSON; None if they are too large for a frame."""
        parts, size = [], 0
        for name in names:
            parts.append(self._roster.shown(name) + b"}")
            size += len(parts[-1])
            if size > _MOST_BYTES // 2:
                return None
        return b",".join(parts)

    def _publish(self, kind: bytes, data: bytes, now: Now) -> None:
        self._number += 1
        self._ping_due = now.tick + PING
        frame = b"%b%b\n\n" % (self._head(self._number, kind), data)
        self._frames.append((self._number, frame))
        self._bytes += len(frame)
        while len(self._frames) > _FRAMES or self._bytes > _MOST_BYTES:
            self._bytes -= len(self._frames.popleft()[1])
        self._wake()

    def _wake(self) -> None:
        waiting, self._published = self._published, asyncio.Event()
        waiting.set()

    def _head(self, number: int, kind: bytes) -> bytes:
        return b"id: %b-%d\nevent: %b\ndata: " % (self._life.encode(), number, kind)

    # --- listeners ---

    def listen(self, last_event_id: str = "") -> AsyncGenerator[bytes, None]:
        """The frames for one listener, from ``last_event_id`` on if it is known. A snapshot comes in pieces.
        Raises TooMany."""
        if self._listeners >= MOST_LISTENERS:
            raise TooMany(f"{MOST_LISTENERS} pages are open, which is the limit; close one, or try again later")
        return self._stream(self._place(last_event_id))

    def _place(self, last_event_id: str) -> int | None:
        life, _, number = last_event_id.partition("-")
        known = life == self._life and number.isdecimal() and len(number) < 20 and int(number) <= self._number
        return int(number) if known else None

    async def _stream(self, place: int | None) -> AsyncGenerator[bytes, None]:
        if self._listeners == 0:
            self._require_snapshot()
        self._listeners += 1
        try:
            yield b"retry: 2000\n\n"
            while not self.closed:
                published = self._published
                if place is None or place + 1 < self._oldest():
                    place = self._number  # noted first: making and sending it takes time
                    async for piece in self._snapshot(place):
                        yield piece
                    continue  # a slow listener may have missed frames by now
                for number, frame in list(self._frames):
                    if number > place:
                        yield frame
                        place = number
                if place == self._number:
                    self.stir()
                    await published.wait()
        finally:
            self._listeners -= 1

    async def _snapshot(self, place: int) -> AsyncIterator[bytes]:
        yield self._head(place, b"snapshot")
        async for piece in gently(self._roster.pieces(self._now())):
            yield piece
        yield b"\n\n"

    def _require_snapshot(self) -> None:
        """Give every listener a snapshot next. Needed when changes were not turned into frames: while nobody listened,
        or when too much changed at once."""
        self._roster.take_changed()
        self._frames.clear()
        self._bytes = 0
        self._number += 1
        self._ping_due = self._now().tick + PING

    def _oldest(self) -> int:
        return self._frames[0][0] if self._frames else self._number + 1


async def gently(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """Yields to the event loop after each piece, so that it answers heartbeats in between."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


class Stream(Response):
    """Sends pieces as fast as the reader takes them, and holds only one. Ends with the last piece, when the reader is
    gone, or when it takes none for ``_STALLED`` seconds."""

    def __init__(self, pieces: AsyncIterator[bytes], media_type: str) -> None:
        super().__init__(media_type=media_type)
        del self.headers["content-length"]
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gone = asyncio.ensure_future(_gone(receive))
        try:
            async for piece in self._pieces:
                if gone.done():
                    return
                async with asyncio.timeout(_STALLED):
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            return
        finally:
            gone.cancel()
            await self._pieces.aclose()  # type: ignore[attr-defined]  # it is an async generator, which this type does not say


class EventStream(Stream):
    """A stream of the frames of one listener."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, "text/event-stream")
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"  # nginx would buffer the frames


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
