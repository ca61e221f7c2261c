"""``GET /events``: what changes, as server-sent events, made once for all who listen.

One producer judges the silent ones when their deadline comes, and turns what changed into frames, at most two a
second. A listener gets a snapshot, then the frames; one that falls behind, or comes back too late, gets a snapshot
again. So nothing is kept for a listener but its place; their number is bounded, and so are the bytes of the frames.
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
"""Seconds between two frames at least."""
PING = 10.0
"""Seconds after which a listener hears something, even where nothing changes."""
_FRAMES = 120
_MOST_BYTES = 16 * 1024 * 1024
"""Of the frames that are kept. Where more changes at once, every listener gets a snapshot instead."""
_STALLED = 30.0


class TooMany(Exception):
    """No more listeners are taken just now."""


class Feed:
    """``stir`` after each change of the roster; ``run`` produces until cancelled."""

    def __init__(self, roster: Roster, now: Callable[[], Now], changed: Callable[[], None]) -> None:
        """``changed`` is called when a judgement gave the roster something new to write."""
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
        """Until a deadline; and where somebody listens, until something changes or a ping is due."""
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
                self._begin_anew()
                self._wake()
                return
            self._publish(b"change", b'{"now":"%b","factories":[%b]}' % (iso(now.wall).encode(), changed), now)
        elif now.tick >= self._ping_due:
            self._publish(b"ping", b'{"now":"%b"}' % iso(now.wall).encode(), now)

    def _changed_alone(self, names: Iterable[str]) -> bytes | None:
        """These factories as JSON; None where they are too much for a frame."""
        made, size = [], 0
        for name in names:
            made.append(self._roster.shown(name) + b"}")
            size += len(made[-1])
            if size > _MOST_BYTES // 2:
                return None
        return b",".join(made)

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
        """The frames for one listener, from ``last_event_id`` on where that is known; a snapshot comes in pieces.
        Raises TooMany."""
        if self._listeners >= MOST_LISTENERS:
            raise TooMany(f"{MOST_LISTENERS} pages are open already, which is the most at the same time")
        return self._stream(self._place(last_event_id))

    def _place(self, last_event_id: str) -> int | None:
        life, _, number = last_event_id.partition("-")
        known = life == self._life and number.isdecimal() and len(number) < 20 and int(number) <= self._number
        return int(number) if known else None

    async def _stream(self, place: int | None) -> AsyncGenerator[bytes, None]:
        if self._listeners == 0:
            self._begin_anew()
        self._listeners += 1
        try:
            yield b"retry: 2000\n\n"
            while not self.closed:
                published = self._published
                if place is None or place + 1 < self._oldest():
                    place = self._number  # before it is made and sent, which may take a while
                    async for piece in self._snapshot(place):
                        yield piece
                    continue  # a slow one may have missed frames meanwhile
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

    def _begin_anew(self) -> None:
        """Whoever listens from now on gets a snapshot: while nobody listened, or where too much changed at once,
        nothing was made into frames."""
        self._roster.take_changed()
        self._frames.clear()
        self._bytes = 0
        self._number += 1
        self._ping_due = self._now().tick + PING

    def _oldest(self) -> int:
        return self._frames[0][0] if self._frames else self._number + 1


async def gently(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """With a breath after each: beats are answered meanwhile."""
    for piece in pieces:
        yield piece
        await asyncio.sleep(0)


class Stream(Response):
    """Sends pieces as fast as they are taken, and holds no more of them than one; until they end, or the reader is
    gone or takes none for ``_STALLED`` seconds."""

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
            await self._pieces.aclose()  # type: ignore[attr-defined]  # an async generator, which a type cannot say here


class EventStream(Stream):
    """The same of a listener's frames."""

    def __init__(self, frames: AsyncIterator[bytes]) -> None:
        super().__init__(frames, "text/event-stream")
        self.headers["cache-control"] = "no-store"
        self.headers["x-accel-buffering"] = "no"  # nginx would hold the frames back


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
