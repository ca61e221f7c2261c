"""The dashboard's HTTP routes. ``roster`` decides, ``keeper`` stores; this module opens no socket.

The time at which the server receives a heartbeat decides who is alive. The sender's own times are only stored. The
event loop answers heartbeats, registrations and the list from memory; history and health read the database in a thread.
No value is trusted: ``wire`` limits what comes in, ``mend`` what the database holds.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from central.dashboard import page
from central.dashboard.body_limit import BodyLimit
from central.dashboard.feed import EventStream, Feed, Stream, TooMany, gently
from central.dashboard.keeper import Keeper
from central.dashboard.liveness import FactoryStatus, Now, Thresholds
from central.dashboard.newcomers import NEW_PER_HOUR, Newcomers
from central.dashboard.roster import RECENT_MINUTES, Full, Roster
from central.dashboard.store import MINUTE, STEPS, FactoryStore, MeanLoad, Step
from central.dashboard.wire import (
    Accepted,
    FactoryList,
    FactoryView,
    Heartbeat,
    History,
    LoadPoint,
    LoadSeries,
    Registration,
    StatusChange,
)

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
_MOST_FAULTS = 20
"""Faults of one body that an answer lists, so that a list of a thousand wrong names gets a short answer."""

Clock = Callable[[], Now]

_ABOUT = """Datasites register here and send heartbeats. People and orchestrators see which of them are alive.

A registration is on the disk before the answer. A heartbeat is on the disk within a second after the answer."""
_DOCS = """/openapi.json describes the HTTP interface of this dashboard (OpenAPI). Open it in any OpenAPI viewer. The
dashboard has no viewer of its own, so that its pages load nothing from other servers. See also docs/dashboard.md.

"""


def present() -> Now:
    return Now(time.time(), time.monotonic())


@dataclass(frozen=True, slots=True)
class _Desk:
    """The parts that the routes use."""

    store: FactoryStore
    roster: Roster
    keeper: Keeper
    feed: Feed
    clock: Clock
    newcomers: Newcomers

    def changed(self) -> None:
        self.keeper.note()
        self.feed.stir()


def create_app(
    database: Path, *, clock: Clock = present, thresholds: Thresholds | None = None, new_per_hour: int = NEW_PER_HOUR
) -> FastAPI:
    """The dashboard with the SQLite file ``database``, which is created if missing. ``new_per_hour``: how many new
    factories one address may register in an hour.

    ``app.state.feed.close()`` ends the open event streams. Raises StoreUnusable when the file cannot be used.
    """
    desk = _desk(FactoryStore(database), clock, thresholds or Thresholds(), Newcomers(new_per_hour))
    app = FastAPI(title="fleet dashboard", description=_ABOUT, lifespan=_lifespan(desk), docs_url=None, redoc_url=None)
    app.state.feed = desk.feed
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(SQLAlchemyError, _unavailable)
    app.add_exception_handler(Exception, _failed)
    for router in (_writing(desk), _reading(desk), _looking_back(desk), page.router(), _docs(app)):
        app.include_router(router)
    return app


def _desk(store: FactoryStore, clock: Clock, thresholds: Thresholds, newcomers: Newcomers) -> _Desk:
    now = clock()
    roster = Roster(thresholds, now, store.factories(), store.minutes(now.wall - RECENT_MINUTES * MINUTE))
    keeper = Keeper(store, roster, clock)
    return _Desk(store, roster, keeper, Feed(roster, clock, keeper.note), clock, newcomers)


def _lifespan(desk: _Desk) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(desk.keeper.run()), asyncio.create_task(desk.feed.run())]
        yield
        desk.feed.close()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await desk.keeper.close()
        desk.store.close()

    return lifespan


def _writing(desk: _Desk) -> APIRouter:
    router = APIRouter()

    @router.post("/register_factory", response_model=Accepted)
    async def register_factory(registration: Registration, request: Request) -> Response:
        """Register a factory, or update its registration. The answer comes when it is on the disk."""
        now = desk.clock()
        _take(desk, registration, request.client.host if request.client else "", now)
        desk.feed.stir()
        await desk.keeper.written()
        name, host, port = registration.factory_name, registration.factory_hostname, registration.factory_port
        logger.info("registered %s at %s:%d", name, host, port)
        return _accepted("registered", name, now)

    @router.post("/heartbeat", response_model=Accepted)
    async def heartbeat(beat: Heartbeat) -> Response:
        """Record that a registered factory is alive, with its load and other values."""
        now = desk.clock()
        if not desk.roster.beat(beat, now):
            raise HTTPException(404, _unknown(beat.factory_name, "register it first with POST /register_factory"))
        desk.changed()
        return _accepted("ok", beat.factory_name, now)

    return router


def _take(desk: _Desk, registration: Registration, address: str, now: Now) -> None:
    new = registration.factory_name not in desk.roster
    if new and (wait := desk.newcomers.wait(address, now.tick)) > 0:
        raise HTTPException(429, _too_many(desk.newcomers.most, wait), {"retry-after": str(math.ceil(wait))})
    try:
        desk.roster.register(registration, now)
    except Full as full:
        raise HTTPException(507, str(full)) from full
    if new:
        desk.newcomers.note(address, now.tick)


def _too_many(most: int, wait: float) -> str:
    return (
        f"this address has registered {most} new factories, which is the limit for one address in an hour; "
        f"try again in {math.ceil(wait)} s, or start the dashboard with a larger --new-per-hour"
    )


def _accepted(status: str, name: str, now: Now) -> Response:
    return JSONResponse({"status": status, "factory_name": name, "received_at": _moment(now.wall).isoformat()})


def _reading(desk: _Desk) -> APIRouter:
    router = APIRouter()

    @router.get("/factories", response_model=FactoryList)
    async def factories() -> Response:
        """All factories, sorted by name."""
        return Stream(gently(desk.roster.pieces(desk.clock())), "application/json")

    @router.get("/factories/{name}", response_model=FactoryView)
    async def factory(name: str) -> Response:
        """One factory."""
        _must_know(desk, name)
        now = desk.clock()
        desk.roster.advance(now)
        return Response(desk.roster.one(name, now), media_type="application/json")

    @router.get("/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
    async def events(last_event_id: Annotated[str, Header()] = "") -> Response:
        """Server-sent events: ``snapshot`` (all factories), then ``change`` (changed factories), or ``ping``."""
        try:
            return EventStream(desk.feed.listen(last_event_id))
        except TooMany as many:
            raise HTTPException(503, str(many), {"retry-after": "30"}) from many

    return router


def _looking_back(desk: _Desk) -> APIRouter:
    router = APIRouter()

    @router.get("/factories/{name}/history")
    def history(name: str) -> History:
        """When the factory was running, late and offline, and its load: by minute, by ten minutes, by six hours."""
        _must_know(desk, name)
        changes = [
            StatusChange(at=_moment(change.at), status=FactoryStatus(change.status))
            for change in desk.store.changes(name)
        ]
        return History(factory_name=name, changes=changes, load=[_series(desk, name, step) for step in STEPS])

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """200 if the dashboard can read and write its database and can list the factories."""
        if desk.keeper.failing is not None:
            raise HTTPException(503, "the dashboard cannot write to its database; see its log")
        await _must_be_listed(desk)
        await run_in_threadpool(desk.store.ping)
        return {"status": "ok"}

    return router


async def _must_be_listed(desk: _Desk) -> None:
    """Make the list as /factories does, and drop it."""
    try:
        async for _piece in gently(desk.roster.pieces(desk.clock())):
            pass
    except Exception as error:
        logger.exception("GET /healthz: cannot list the factories")
        raise HTTPException(503, "the dashboard cannot list the factories; see its log") from error


def _series(desk: _Desk, name: str, step: Step) -> LoadSeries:
    points = [_point(load) for load in desk.store.loads(name, step, desk.clock().wall)]
    return LoadSeries(step_s=step.seconds, kept_s=step.kept, points=points)


def _point(load: MeanLoad) -> LoadPoint:
    return LoadPoint(
        at=_moment(load.at),
        beats=load.beats,
        cpu_usage=load.cpu,
        memory_usage=load.memory,
        disk_usage=load.disk,
        network_latency=load.latency,
    )


def _docs(app: FastAPI) -> APIRouter:
    router = APIRouter()

    @router.get("/docs", include_in_schema=False)
    async def docs() -> PlainTextResponse:
        rows = [
            f"{method.upper():5} {path:28} {route.get('description') or route.get('summary', '')}"
            for path, methods in app.openapi()["paths"].items()
            for method, route in methods.items()
        ]
        return PlainTextResponse(_DOCS + "\n".join(rows) + "\n")

    return router


def _must_know(desk: _Desk, name: str) -> None:
    if name not in desk.roster:
        raise HTTPException(404, _unknown(name, "GET /factories lists the registered ones"))


def _moment(posix: float) -> datetime:
    return datetime.fromtimestamp(posix, UTC)


def _unknown(name: str, advice: str) -> str:
    return f"factory {name!r} is not registered; {advice}"


def _unprocessable(_request: Request, error: Exception) -> Response:
    """FastAPI's 422 without the input: an echo could return a hostile value, or fail to encode it."""
    assert isinstance(error, RequestValidationError)
    faults = [
        {"loc": fault["loc"], "msg": fault["msg"], "type": fault["type"]} for fault in error.errors()[:_MOST_FAULTS]
    ]
    return Response(json.dumps({"detail": faults}), status_code=422, media_type="application/json")


def _unavailable(request: Request, error: Exception) -> Response:
    logger.error("%s %s: the database failed: %s", request.method, request.url.path, error)
    reason = "the dashboard cannot use its database at the moment; try again later"
    return JSONResponse({"detail": reason}, status_code=503, headers={"retry-after": "5"})


def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "the dashboard failed; see its log"}, status_code=500)
