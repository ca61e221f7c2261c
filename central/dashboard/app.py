"""The dashboard's HTTP: routes, and nothing else. Decides by ``liveness``, remembers by ``store``; serves no socket.

The server's receive time (``clock``, UTC) decides who is alive; the sender's own times are kept as told. Endpoints
that touch the database are plain functions: FastAPI runs them in its thread pool, off the event loop.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError

from central.dashboard import page
from central.dashboard.limits import BodyLimit
from central.dashboard.liveness import Thresholds, judge
from central.dashboard.store import Factory, FactoryStore
from central.dashboard.wire import Accepted, CurrentLoad, FactoryList, FactoryView, Heartbeat, Registration

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(database: Path, *, clock: Clock = utc_now, thresholds: Thresholds | None = None) -> FastAPI:
    """The dashboard over the SQLite file ``database``, made if absent.

    ``clock`` returns the present moment with a time zone. Raises StoreUnusable when the file cannot be used.
    """
    store = FactoryStore(database)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app = FastAPI(title="fleet dashboard", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(BodyLimit, limit=MAX_BODY_BYTES)
    app.add_exception_handler(RequestValidationError, _unprocessable)
    app.add_exception_handler(SQLAlchemyError, _unavailable)
    app.add_exception_handler(Exception, _failed)
    app.include_router(_writing(store, clock))
    app.include_router(_reading(store, clock, thresholds or Thresholds()))
    app.include_router(page.router())
    return app


def _writing(store: FactoryStore, clock: Clock) -> APIRouter:
    router = APIRouter()

    @router.post("/register_factory")
    def register_factory(told: Registration) -> Accepted:
        now = clock()
        store.register(_newcomer(told, now.timestamp()))
        logger.info("registered %s at %s:%d", told.factory_name, told.factory_hostname, told.factory_port)
        return Accepted(status="registered", factory_name=told.factory_name, received_at=now)

    @router.post("/heartbeat")
    def heartbeat(told: Heartbeat) -> Accepted:
        now = clock()
        if not store.beat(told.factory_name, now.timestamp(), _columns(told)):
            raise HTTPException(404, _unknown(told.factory_name, "register it with POST /register_factory first"))
        return Accepted(status="ok", factory_name=told.factory_name, received_at=now)

    return router


def _reading(store: FactoryStore, clock: Clock, thresholds: Thresholds) -> APIRouter:
    router = APIRouter()

    @router.get("/factories", response_model=FactoryList)
    def factories() -> Response:
        """Thousands of rows: pydantic writes the JSON itself, FastAPI's second validation is spared."""
        now = clock()
        views = [_view(factory, now, thresholds) for factory in store.all()]
        late, offline = thresholds.late_after, thresholds.offline_after
        listed = FactoryList(now=now, late_after=late, offline_after=offline, factories=views)
        return Response(listed.model_dump_json(), media_type="application/json")

    @router.get("/factories/{name}")
    def factory(name: str) -> FactoryView:
        found = store.get(name)
        if found is None:
            raise HTTPException(404, _unknown(name, "GET /factories lists those that are"))
        return _view(found, clock(), thresholds)

    @router.get("/healthz")
    def healthz() -> dict[str, str]:
        store.ping()
        return {"status": "ok"}

    return router


def _newcomer(told: Registration, now: float) -> Factory:
    return Factory(
        name=told.factory_name,
        hostname=told.factory_hostname,
        port=told.factory_port,
        device=told.device,
        reported_status=told.status,
        capabilities=told.capabilities,
        registered_at=now,
        last_seen=now,
    )


def _columns(told: Heartbeat) -> dict[str, Any]:
    """The columns that a beat tells; null tells nothing."""
    columns = told.model_dump(exclude={"factory_name"})
    columns["reported_status"] = columns.pop("status")
    return {column: value for column, value in columns.items() if value is not None}


def _view(factory: Factory, now: datetime, thresholds: Thresholds) -> FactoryView:
    silence = max(0.0, now.timestamp() - factory.last_seen)
    return FactoryView(
        factory_name=factory.name,
        status=judge(silence, thresholds),
        reported_status=factory.reported_status,
        hostname=factory.hostname,
        port=factory.port,
        device=factory.device,
        capabilities=factory.capabilities,
        registered_at=_moment(factory.registered_at),
        last_seen=_moment(factory.last_seen),
        silence_s=round(silence, 3),
        last_heartbeat=_moment(factory.last_heartbeat) if factory.last_heartbeat is not None else None,
        timestamp=factory.timestamp,
        current_load=CurrentLoad(**factory.current_load) if factory.current_load else None,
        active_experiments=factory.active_experiments,
        last_training_completion=factory.last_training_completion,
    )


def _moment(posix: float) -> datetime:
    return datetime.fromtimestamp(posix, UTC)


def _unknown(name: str, advice: str) -> str:
    return f"factory {name!r} is not registered here: {advice}"


def _unprocessable(_request: Request, error: Exception) -> Response:
    """FastAPI's 422 without the input: echoing it would answer a hostile value with itself, or fail to encode it."""
    assert isinstance(error, RequestValidationError)
    faults = [{"loc": fault["loc"], "msg": fault["msg"], "type": fault["type"]} for fault in error.errors()]
    return Response(json.dumps({"detail": faults}), status_code=422, media_type="application/json")


def _unavailable(request: Request, error: Exception) -> Response:
    logger.error("%s %s: the database failed: %s", request.method, request.url.path, error)
    reason = "the dashboard's database cannot be used just now; try again"
    return JSONResponse({"detail": reason}, status_code=503, headers={"retry-after": "5"})


def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "the dashboard failed; its log says why"}, status_code=500)
