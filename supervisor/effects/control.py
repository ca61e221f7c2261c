"""The control API: HTTP over a unix socket that only its owner may open.

It reads the board and posts; it decides nothing.

GET  /v1/status[?after=REVISION&timeout=SECONDS]     the snapshot, at once or when something changed
POST /v1/workers/NAME/start|stop|restart             202; 404 unknown name; 409 while the fleet goes down
POST /v1/down                                        202
POST /v1/reload[?dry_run=1]                          202 (200) with the plan; 422 and the problems of a broken file
"""

from __future__ import annotations

import asyncio
import difflib
import os
import socket
from collections.abc import Callable, Collection
from concurrent.futures import Future
from pathlib import Path
from typing import Annotated, Any

import anyio.to_thread
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fleet_common import folders
from fleet_common.unix_path import short_path
from fleet_common.untrusted import Between, Unfit, decoded
from supervisor.effects.board import Board, Pinned
from supervisor.effects.service import ServiceThread
from supervisor.facts import OperatorAsked
from supervisor.messages import DownAsked, Message, ReloadAsked
from supervisor.policy import reconcile
from supervisor.policy.placement import ImpossibleGpus, Placement
from supervisor.record import OperatorRequest, running
from supervisor.snapshot import FleetSnapshot

_LONGEST_POLL = 30.0
_CLOSING = 1.0
_LARGEST_HEAD = 16 * 1024
"""Bytes of a request's line and headers. No request has a body that anybody reads."""
_LONGEST_NUMBER = 32
Revision = Annotated[int, Between(-1, 2**53)]
Seconds = Annotated[float, Between(0, 1e9)]


class ReloadFailed(Exception):
    """The fleet.yaml cannot be used; the message says where and why."""


ReadAgain = Callable[[], ReloadAsked]
"""Reads the fleet.yaml anew, and looks at the GPUs. Raises ReloadFailed."""
PlaceLines = Callable[[ReloadAsked, Collection[str]], Placement]
"""Where its datasites would go, while the named ones run."""


class ControlServer:
    """``picture`` makes a snapshot of the published state; ``post`` sends a request to the engine; ``read_again`` reads
    the fleet.yaml again, and ``place`` says where the datasites would go then."""

    def __init__(
        self,
        board: Board,
        picture: Callable[[Pinned], FleetSnapshot],
        post: Callable[[Message], None],
        read_again: ReadAgain,
        place: PlaceLines = lambda _asked, _running: Placement(),
    ) -> None:
        self._board = board
        self._picture = picture
        self._post = post
        self._read_again = read_again
        self._place = place
        self._server: _Quiet | None = None
        self._service: ServiceThread | None = None
        self._path: Path | None = None
        self._serving: Future[None] | None = None

    def open(self, path: Path, service: ServiceThread) -> None:
        """Listen on ``path``, which has mode 0600 from the start."""
        self._path = path
        self._service = service
        self._serve(_listen(path))

    def reopen(self) -> None:
        """Listen again, where somebody has removed the socket; nobody can reach the old one. Raises OSError, and then
        changes nothing."""
        if self._server is None or self._path is None or self._service is None:
            return
        listening, old = _listen(self._path), self._server
        self._serve(listening)
        self._service.run(old.end)

    def _serve(self, listening: socket.socket) -> None:
        config = uvicorn.Config(
            self._app(),
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            date_header=False,
            http="h11",  # the other one takes headers without end
            h11_max_incomplete_event_size=_LARGEST_HEAD,
        )
        self._server = _Quiet(config)
        assert self._service is not None
        self._serving = self._service.submit(self._server.serve(sockets=[listening]))

    def close(self) -> None:
        if self._server is None or self._serving is None or self._path is None or self._service is None:
            return
        self._path.unlink(missing_ok=True)
        self._service.run(self._server.end)
        self._serving.exception(_CLOSING * 2)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/status", self._status),
                Route("/v1/workers/{name}/{request}", self._ask, methods=["POST"]),
                Route("/v1/down", self._down, methods=["POST"]),
                Route("/v1/reload", self._reload, methods=["POST"]),
            ]
        )

    async def _status(self, request: Request) -> JSONResponse:
        after = _number(request.query_params.get("after", "-1"), Revision)
        timeout = _number(request.query_params.get("timeout", "10"), Seconds)
        if isinstance(after, Unfit) or isinstance(timeout, Unfit):
            return _refusal(400, "after must be a revision, and timeout a number of seconds")
        return JSONResponse(await anyio.to_thread.run_sync(self._snapshot, after, min(timeout, _LONGEST_POLL)))

    def _snapshot(self, after: int, timeout: float) -> dict[str, Any]:
        return self._picture(self._board.wait(after, timeout)).to_dict()

    async def _ask(self, request: Request) -> JSONResponse:
        name, word = request.path_params["name"], request.path_params["request"]
        pinned = self._board.read()
        if word not in list(OperatorRequest):
            return _refusal(404, f"unknown request: {word}; known: {', '.join(OperatorRequest)}")
        if name not in pinned.records:
            near = difflib.get_close_matches(name, pinned.records, n=3)
            return _refusal(404, f"no datasite named {name}", near=near)
        if pinned.stopping:
            return _refusal(409, "the fleet is stopping")
        self._post(OperatorAsked(name, OperatorRequest(word)))
        generation = pinned.records[name].generation
        return JSONResponse({"name": name, "request": word, "generation": generation}, status_code=202)

    async def _down(self, _request: Request) -> JSONResponse:
        self._post(DownAsked())
        return JSONResponse({"request": "down"}, status_code=202)

    async def _reload(self, request: Request) -> JSONResponse:
        pinned, dry_run = self._board.read(), request.query_params.get("dry_run", "0") == "1"
        if pinned.stopping:
            return _refusal(409, "the fleet is stopping")
        try:
            reload = await anyio.to_thread.run_sync(self._read_again)
        except ReloadFailed as error:
            return _refusal(422, str(error))
        placement = self._place(reload, running(pinned.records.values()))
        if placement.problems:
            return _refusal(422, str(ImpossibleGpus(placement.problems)))
        plan = reconcile.plan(pinned.config, reload.config, placement.moved)
        if plan.refused:
            return _refusal(
                409, f"{', '.join(plan.refused)} cannot change while the fleet runs; use fleet down, then fleet up"
            )
        if not dry_run:
            self._post(reload)
        return JSONResponse(plan.to_dict(), status_code=200 if dry_run else 202)


class _Quiet(uvicorn.Server):
    """uvicorn's server without its tick, which wakes an idle supervisor ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._over = asyncio.Event()

    async def main_loop(self) -> None:
        await self._over.wait()

    def end(self) -> None:
        """Call this in its own loop."""
        self.should_exit = True
        self.force_exit = True
        self._over.set()


def _number(text: str, form: Any) -> Any:
    return decoded(text.encode("utf-8", "replace"), form, _LONGEST_NUMBER)


def _refusal(code: int, error: str, **more: Any) -> JSONResponse:
    return JSONResponse({"error": error, **more}, status_code=code)


def _listen(path: Path) -> socket.socket:
    folders.make_way(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    os.fchmod(listening.fileno(), folders.PRIVATE_FILE)  # so the name has that mode from its first moment
    with short_path(path) as address:
        listening.bind(address)
    listening.listen(64)
    return listening
