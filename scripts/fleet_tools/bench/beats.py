"""The load on a dashboard: thousands of factories that send heartbeats, pages that listen, readers that list.
Measures; decides nothing.

The load is open: a beat goes out when it is due, whether the ones before it were answered or not, and its time counts
from that moment on. So a server that stands still for a second is charged for every beat of that second.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

PATIENCE = 10.0
"""Seconds after which a beat counts as failed; its time is then this."""
_AT_ONCE = 50
_LOOK = 3.0


@dataclass(slots=True)
class Seen:
    """Seconds, and how often something was refused or not answered. ``lags``: how late the load itself was."""

    beats: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    lists: list[float] = field(default_factory=list)
    shown: list[float] = field(default_factory=list)
    failed: int = 0


class Crowd:
    """``count`` factories at the dashboard on ``port``."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._names = [f"plant_{number // 20:03}_line_{number % 20:02}" for number in range(count)]
        self._answered: dict[str, float] = {}
        self._round = 0
        self.seen = Seen()

    async def register(self) -> float:
        """All of them, so many at a time; the seconds it took."""
        turns = asyncio.Semaphore(_AT_ONCE)
        began = time.monotonic()

        async def one(name: str) -> None:
            async with turns:
                await self._counted(_post("/register_factory", _registration(name)))

        await asyncio.gather(*map(one, self._names))
        return time.monotonic() - began

    async def beat(self, seconds: float) -> Seen:
        """Every one beats once within ``seconds``, evenly spread."""
        self.seen = Seen()
        self._round += 1
        began, step = time.monotonic(), seconds / len(self._names)
        sent = []
        for number, name in enumerate(self._names):
            due = began + number * step
            if (early := due - time.monotonic()) > 0:
                await asyncio.sleep(early)
            sent.append(asyncio.create_task(self._beat(name, due)))
        await asyncio.gather(*sent)
        return self.seen

    async def _beat(self, name: str, due: float) -> None:
        self.seen.lags.append(time.monotonic() - due)
        if not await self._counted(_post("/heartbeat", _heartbeat(name, self._round))):
            self.seen.beats.append(PATIENCE)
            return
        answered = time.monotonic()
        self.seen.beats.append(answered - due)
        self._answered[name] = answered

    async def _counted(self, request: bytes) -> bool:
        try:
            async with asyncio.timeout(PATIENCE):
                status, _body = await ask(self._port, request)
        except (TimeoutError, OSError, asyncio.IncompleteReadError, ValueError):
            status = 0
        self.seen.failed += status != 200
        return status == 200

    # --- those who look on ---

    @asynccontextmanager
    async def watched(self, readers: int, listeners: int) -> AsyncIterator[None]:
        """Meanwhile so many read the whole list every three seconds, and so many pages listen."""
        looks: list[Callable[[], Coroutine[Any, Any, None]]] = [self._read] * readers + [self._listen] * listeners
        tasks = [asyncio.ensure_future(look()) for look in looks]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self) -> None:
        while True:
            began = time.monotonic()
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                await ask(self._port, b"GET /factories HTTP/1.1\r\nhost: bench\r\n\r\n")
                self.seen.lists.append(time.monotonic() - began)
            await asyncio.sleep(_LOOK)

    async def _listen(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=64 * 1024 * 1024)
        writer.write(b"GET /events HTTP/1.1\r\nhost: bench\r\n\r\n")
        kind = ""
        while line := await reader.readline():
            if line.startswith(b"event: "):
                kind = line.split()[1].decode()
            elif kind == "change" and line.startswith(b"data: "):
                self._note_shown(line)

    def _note_shown(self, line: bytes) -> None:
        now = time.monotonic()
        for factory in json.loads(line[6:])["factories"]:
            if answered := self._answered.pop(factory["factory_name"], None):
                self.seen.shown.append(now - answered)


async def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body, on a connection of its own, as a datasite's comes 30 s after the last one."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024 * 1024)
    try:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        body = await (_in_chunks(reader) if b"\r\ntransfer-encoding: chunked" in head else _in_one(reader, head))
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()


async def _in_one(reader: asyncio.StreamReader, head: bytes) -> bytes:
    lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.startswith(b"content-length")]
    if not lengths:
        raise ValueError("no content-length")
    return await reader.readexactly(int(lengths[0]))


async def _in_chunks(reader: asyncio.StreamReader) -> bytes:
    chunks = []
    while length := int(await reader.readline(), 16):
        chunks.append((await reader.readexactly(length + 2))[:-2])
    return b"".join(chunks)


def _post(path: str, body: dict[str, object]) -> bytes:
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


def _registration(name: str) -> dict[str, object]:
    capabilities = {
        "max_concurrent_training": 3,
        "supported_models": ["torch"],
        "data_types": ["tabular", "timeseries"],
        "security_level": "standard",
    }
    return {
        "factory_name": name,
        "factory_hostname": "plant.example.com",
        "factory_port": 8080,
        "device": "cuda:0",
        "status": "running",
        "capabilities": capabilities,
        "region": name[6:7],
    }


def _heartbeat(name: str, number: int) -> dict[str, object]:
    load = {"cpu_usage": 20.0 + number, "memory_usage": 61.2, "disk_usage": 40.1, "network_latency": 3.4}
    return {
        "factory_name": name,
        "hostname": "plant.example.com",
        "port": 8080,
        "device": "cuda:0",
        "timestamp": "2025-01-31T12:00:00+00:00",
        "status": "operational",
        "current_load": load,
        "active_experiments": ["train_bearing_model"],
        "last_training_completion": "2025-01-31T11:00:00+00:00",
    }
