"""Hosts PySyft's own server and HTTP app inside this process. Opens no socket itself, and decides nothing.

PySyft reads its identity from the environment when it is imported, which here is long before a worker is born; so
everything is given to it as arguments.
"""

from __future__ import annotations

import inspect
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from nacl.signing import SigningKey
from syft.server.credentials import SyftSigningKey
from syft.server.datasite import Datasite
from syft.server.routes import make_routes
from syft.service.api.api_service import APIService
from syft.service.context import AuthedServiceContext
from syft.service.queue import zmq_consumer
from syft.service.queue.zmq_producer import ZMQProducer
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.result import as_result
from syft.types.uid import UID

from datasite_worker import jobs
from datasite_worker.contract import STATUS_PATH, StatusDocument
from datasite_worker.credentials import AdminLogin, Identity

_STOP_PATIENCE = 1
_START_PATIENCE = 10.0
_ENDPOINT = "factory.status"
_NEVER = 10.0 * 365 * 86400


class SettledDatasite(Datasite):  # type: ignore[misc]  # PySyft has no types
    """PySyft's datasite, which settles the jobs of its last life before its queue starts to move them."""

    interrupted: list[str]

    def init_queue_manager(self, queue_config: Any) -> None:
        self.interrupted = jobs.settle(self)
        super().init_queue_manager(queue_config)
        self._consume()

    def _consume(self) -> None:
        """PySyft starts the consumers of its default pool only when it makes the pool, on a first start; without this,
        no job queued after a restart would ever run."""
        pool = self.get_default_worker_pool().unwrap()
        at_work = {one.syft_worker_id for several in self.queue_manager.consumers.values() for one in several}
        (producer,) = self.queue_manager.producers.values()
        for worker in pool.worker_list:
            if worker.object_uid not in at_work:
                self.add_consumer_for_service(pool.name, worker.object_uid, producer.address)


def make_server(name: str, who: Identity, state: Path, *, dev_mode: bool, auto_approval: bool) -> SettledDatasite:
    """PySyft's server with its fixed identity. Queued jobs run in a thread of this process: a job forked from a
    serving process can deadlock in SQLite."""
    os.environ["SYFT_TEMP_ROOT"] = str(state / "syft")
    _keep_queue_on_loopback()
    _keep_queue_going()
    return SettledDatasite(
        name=name,
        id=UID.from_string(who.uid),
        signing_key=SyftSigningKey(signing_key=SigningKey(bytes.fromhex(who.signing_key))),
        root_email=who.root_email,
        root_username="fleet",
        root_password=who.root_password,
        processes=1,
        thread_workers=True,
        n_consumers=1,
        create_producer=True,
        in_memory_workers=True,
        association_request_auto_approval=auto_approval,
        dev_mode=dev_mode,
    )


def _keep_queue_on_loopback() -> None:
    """PySyft's job queue binds every interface, without authentication; nobody outside this host needs it."""

    def bind(producer: Any, endpoint: str) -> None:
        producer.socket.bind(endpoint.replace("tcp://*:", "tcp://127.0.0.1:"))

    ZMQProducer.bind = bind


def _keep_queue_going() -> None:
    """A consumer that was busy for more than a minute takes its producer for dead, and reconnects so clumsily that the
    next job waits another minute. Here both live in one process, and neither outlives the other."""
    zmq_consumer.PRODUCER_TIMEOUT_SEC = _NEVER


def create_admin(server: Datasite, login: AdminLogin) -> bool:
    """Add the user with role ADMIN; False when the e-mail is known already (its password is left as it is)."""
    context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
    try:
        server.services.user.stash.get_by_email(credentials=server.verify_key, email=login.email).unwrap()
    except SyftException:
        server.services.user.create(
            context,
            email=login.email,
            name=login.name,
            role=ServiceRole.ADMIN,
            password=login.password,
            password_verify=login.password,
        )
        return True
    return False


def make_app(server: Datasite, status: Callable[[], StatusDocument]) -> FastAPI:
    """PySyft's routes under /api/v2, and the public status beside them."""
    app = FastAPI(title=server.name)
    app.include_router(make_routes(worker=server), prefix="/api/v2")

    @app.get(STATUS_PATH)
    async def factory_status() -> Response:
        return Response(status().to_json(), media_type="application/json")

    return app


class Serving:
    """The app served on ``listening`` by a thread of this process, from now on."""

    def __init__(self, app: FastAPI, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_STOP_PATIENCE
        )
        self._server = _Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listening]}, name="http", daemon=True
        )
        self._thread.start()
        self._server.settled.wait(_START_PATIENCE)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(_STOP_PATIENCE * 2)


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it answers, or has failed to."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.settled.set()


def offer_status(server: Datasite, said: Callable[[], dict[str, Any]]) -> None:
    """PySyft's own ``factory.status``: ``client.api.services.factory.status()`` answers what ``said`` says then.

    PySyft would run it as a job, behind whatever trains in the queue, and give up after a minute: it is answered
    directly. What is kept in the database only makes it known to clients.
    """
    _said[server.id] = said
    APIService._call_in_jobs = _call
    context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
    service = server.services.api
    kept = [endpoint.path for endpoint in service.api_endpoints(context)]
    if _ENDPOINT in kept:
        service.set_settings(context, _ENDPOINT, settings=said(), mock=True)
    else:
        service.set(context, _endpoint(said()))


_said: dict[UID, Callable[[], dict[str, Any]]] = {}
_call_in_job = inspect.unwrap(APIService._call_in_jobs)


@as_result(SyftException)  # type: ignore[untyped-decorator]  # PySyft has no types
def _call(service: APIService, context: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
    if path == _ENDPOINT and context.server.id in _said:
        return _said[context.server.id]()
    return _call_in_job(service, context, method, path, *args, **kwargs)


def _endpoint(settings: dict[str, Any]) -> Any:
    import syft as sy

    @sy.api_endpoint(path=_ENDPOINT, description="How this datasite is.", settings=settings)
    def factory_status(context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        return dict(context.settings)

    return factory_status
