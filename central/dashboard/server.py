"""Serves the dashboard's app on a bound socket until SIGTERM or SIGINT. Opens no socket itself.

A stop is a normal end: idle connections and event streams are closed at once. Pending answers get ``GRACE`` seconds.
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import resource
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Header, Response

from fleet_common.contract import STATUS_PATH, StatusDocument

GRACE = 1


def serve(
    app: FastAPI,
    listener: socket.socket,
    *,
    status: Callable[[], StatusDocument],
    probe_key: str = "",
    on_serving: Callable[[], None],
    on_stopping: Callable[[], None],
) -> None:
    """Serve on ``listener`` until a signal stops it. ``GET /factory.status`` returns ``status`` to callers with the
    ``probe_key``, and less to others.

    Only for the main thread of a process: it handles SIGTERM and SIGINT.
    """
    _offer_status(app, status, probe_key)
    config = uvicorn.Config(
        app,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # uvicorn renews the date in its tick, which our server does not run
        timeout_graceful_shutdown=GRACE,
    )

    def stopping() -> None:
        app.state.feed.close()
        on_stopping()

    server = _Server(config, on_serving, stopping)
    # uvicorn raises a signal again after it stopped because of it. These handlers make that a normal end, and keep a
    # signal that arrives before uvicorn's own handlers are set.
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: setattr(server, "should_exit", True))
    _make_room()
    server.run(sockets=[listener])


def _make_room() -> None:
    """Prepare for thousands of connections: allow enough files, keep the garbage collector away from what is loaded by
    now, and let the writing thread give up the interpreter within a millisecond."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(0.001)


def _offer_status(app: FastAPI, status: Callable[[], StatusDocument], probe_key: str) -> None:
    @app.get(STATUS_PATH, include_in_schema=False)
    async def factory_status(x_fleet_probe: Annotated[str, Header()] = "") -> Response:
        known = bool(probe_key) and hmac.compare_digest(x_fleet_probe.encode(), probe_key.encode())
        document = status().to_json() if known else status().to_public_json()
        return Response(document, media_type="application/json")


class _Server(uvicorn.Server):
    """uvicorn's server without its tick ten times a second, and with callbacks when it serves and when it stops."""

    def __init__(self, config: uvicorn.Config, on_serving: Callable[[], None], on_stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_serving = on_serving
        self._on_stopping = on_stopping
        self._over = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        if not self.should_exit:  # an earlier signal had no loop to wake
            await self._over.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._over.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_serving()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_stopping()
        await super().shutdown(sockets)
