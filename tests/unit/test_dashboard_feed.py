"""The event stream: one producer for all, snapshots and changes, and nothing kept for a listener but its place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from central.dashboard import feed as feed_module
from central.dashboard.feed import EventStream, Feed, TooMany
from central.dashboard.liveness import Now, Thresholds
from central.dashboard.roster import Roster
from central.dashboard.wire import Heartbeat, Registration


class World:
    """A feed with its producer, over a roster with ``alpha``."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.written = 0
        self.roster = Roster(Thresholds(), self.now())
        self.feed = Feed(self.roster, self.now, self._note)
        self.register("alpha")

    def _note(self) -> None:
        self.written += 1

    def now(self) -> Now:
        return Now(1_800_000_000.0 + self.passed, 1000.0 + self.passed)

    def register(self, name: str) -> None:
        self.roster.register(Registration(factory_name=name, factory_hostname="h", factory_port=1), self.now())
        self.feed.stir()

    def beat(self, name: str = "alpha") -> None:
        self.roster.beat(Heartbeat(factory_name=name), self.now())
        self.feed.stir()


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[World], Coroutine[Any, Any, Any]]], Any]:
    """Run a coroutine beside the producer, with ten seconds as a ceiling."""
    monkeypatch.setattr(feed_module, "GATHER", 0.01)

    def run(scene: Callable[[World], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            world = World()
            producer = asyncio.create_task(world.feed.run())
            try:
                async with asyncio.timeout(10):
                    return await scene(world)
            finally:
                producer.cancel()

        return asyncio.run(main())

    return run


async def event(frames: AsyncIterator[bytes]) -> tuple[str, str, list[str]]:
    """Kind, id and names of the next event, which may come in pieces."""
    frame = b""
    async for piece in frames:
        frame = frame + piece if frame or piece.startswith(b"id: ") else b""
        if not frame.endswith(b"\n\n"):
            continue
        number, kind, data = (line.partition(": ")[2] for line in frame.decode().strip().split("\n"))
        return kind, number, [one["factory_name"] for one in json.loads(data).get("factories", [])]
    return "end", "", []


async def until_change(frames: AsyncIterator[bytes], name: str) -> str:
    """The id of the next change that names ``name``."""
    while True:
        kind, number, names = await event(frames)
        if kind == "change" and name in names:
            return number


async def until_frame(frames: AsyncIterator[bytes], part: bytes) -> bytes:
    """The next frame with ``part`` in it, as it is sent."""
    while part not in (frame := await anext(frames)):
        pass
    return frame


def test_a_listener_gets_all_and_then_what_changes(drive: Any) -> None:
    """A snapshot first; a beat is told with that factory alone."""

    async def scene(world: World) -> Any:
        world.register("beta")
        frames = world.feed.listen()
        first = await event(frames)
        world.beat("beta")
        return first[0], first[2], (await event(frames))[2]

    assert ("snapshot", ["alpha", "beta"], ["beta"]) == drive(scene)


def test_changes_are_made_once_for_all(drive: Any) -> None:
    """Two listeners get the same bytes, made by one producer."""

    async def scene(world: World) -> Any:
        streams = [world.feed.listen() for _ in range(2)]
        for frames in streams:
            await event(frames)
        world.register("beta")
        return [await until_frame(frames, b'"beta"') for frames in streams]

    one, other = drive(scene)
    assert one is other


def test_one_that_comes_back_goes_on_where_it_was(drive: Any) -> None:
    """By the last id that it heard; one of another life, or from long ago, gets a snapshot."""

    async def scene(world: World) -> Any:
        frames, another = world.feed.listen(), world.feed.listen()
        await event(frames)
        await event(another)
        world.register("gamma")
        heard = await until_change(frames, "gamma")
        world.register("beta")
        await until_change(frames, "beta")
        await frames.aclose()
        kinds = [(await event(world.feed.listen(last)))[0] for last in (heard, "", "feedbeef-1", f"{heard[:-1]}999")]
        for number in range(130):
            world.register(f"more{number}")
            world.feed._produce(world.now())
        return [*kinds, (await event(world.feed.listen(heard)))[0]]

    assert ["change", "snapshot", "snapshot", "snapshot", "snapshot"] == drive(scene)


def test_silence_is_told_without_a_request(drive: Any) -> None:
    """The producer judges when the deadline comes, tells the page and has the change written."""

    async def scene(world: World) -> Any:
        frames = world.feed.listen()
        await event(frames)
        world.passed = 91.0
        world.feed.stir()
        await until_change(frames, "alpha")
        return world.written, json.loads(world.roster.all(world.now()))["factories"][0]["status"]

    assert (1, "offline") == drive(scene)


def test_what_changed_while_nobody_listened_is_in_the_snapshot_alone(drive: Any) -> None:
    """Nothing is told twice to the first page of the day; one that comes back to an empty room gets a snapshot."""

    async def scene(world: World) -> Any:
        world.register("beta")
        frames = world.feed.listen()
        kind, number, names = await event(frames)
        world.beat("beta")
        then = await event(frames)
        await frames.aclose()
        world.register("gamma")
        again = await event(world.feed.listen(number))
        return kind, names, then[2], again[0], again[2]

    assert ("snapshot", ["alpha", "beta"], ["beta"], "snapshot", ["alpha", "beta", "gamma"]) == drive(scene)


def test_a_quiet_dashboard_is_heard_too(drive: Any) -> None:
    """A ping every ten seconds, so that a page knows that it is connected."""

    async def scene(world: World) -> Any:
        frames = world.feed.listen()
        await event(frames)
        world.passed = 11.0
        world.feed.stir()
        return (await event(frames))[0]

    assert "ping" == drive(scene)


def test_the_bytes_of_the_frames_are_bounded(drive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fat factories that beat and beat fill no memory; a listener that is behind gets a snapshot."""
    monkeypatch.setattr(feed_module, "_MOST_BYTES", 8000)

    async def scene(world: World) -> Any:
        frames, slow = world.feed.listen(), world.feed.listen()
        await event(frames)
        await event(slow)
        for _ in range(40):
            world.beat()
            world.feed._produce(world.now())
        return sum(len(frame) for _number, frame in world.feed._frames), (await event(slow))[0]

    kept, then = drive(scene)
    assert 2000 < kept <= 8000
    assert "snapshot" == then


def test_too_much_at_once_is_a_snapshot_for_all(drive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of a frame as large as one, which would be kept."""
    monkeypatch.setattr(feed_module, "_MOST_BYTES", 8000)

    async def scene(world: World) -> Any:
        frames = world.feed.listen()
        await event(frames)
        for number in range(40):
            world.register(f"line_{number}")
        kind, _number, names = await event(frames)
        world.beat("line_7")
        return kind, len(names), (await event(frames))[::2]

    assert ("snapshot", 41, ("change", ["line_7"])) == drive(scene)


def test_their_number_is_bounded(drive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is refused; a place is free again when a listener has gone."""
    monkeypatch.setattr(feed_module, "MOST_LISTENERS", 1)

    async def scene(world: World) -> Any:
        frames = world.feed.listen()
        await event(frames)
        with pytest.raises(TooMany):
            world.feed.listen()
        await frames.aclose()
        return (await event(world.feed.listen()))[0]

    assert "snapshot" == drive(scene)


def test_closing_ends_every_stream(drive: Any) -> None:
    """So that a dashboard that stops waits for nobody."""

    async def scene(world: World) -> Any:
        frames = world.feed.listen()
        await event(frames)
        ending = asyncio.ensure_future(event(frames))
        await asyncio.sleep(0)
        world.feed.close()
        return (await ending)[0]

    assert "end" == drive(scene)


def test_one_that_takes_nothing_is_given_up(drive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place is free again after the time limit."""
    monkeypatch.setattr(feed_module, "_STALLED", 0.05)
    sent = []

    async def scene(world: World) -> Any:
        async def send(message: Any) -> None:
            sent.append(message["type"])
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        async def receive() -> Any:
            await asyncio.Event().wait()

        await EventStream(world.feed.listen())({"type": "http"}, receive, send)
        return world.feed._listeners

    assert 0 == drive(scene)
    assert ["http.response.start", "http.response.body"] == sent
