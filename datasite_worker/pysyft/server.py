"""Hosts PySyft's own server and HTTP app inside this process. Opens no socket itself, and decides nothing.

PySyft reads its identity from the environment when it is imported, which here is long before a worker is born; so
everything is given to it as arguments.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import uvicorn
from nacl.signing import SigningKey
from starlette.applications import Starlette
from syft.client.api import SignedSyftAPICall
from syft.server.credentials import SyftSigningKey
from syft.server.datasite import Datasite
from syft.server.server import CODE_RELOADER, AuthServerContextRegistry, create_default_worker_pool
from syft.service.api.api_service import APIService
from syft.service.context import AuthedServiceContext
from syft.service.queue.queue import QueueManager
from syft.service.user.user import User, UserV1
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.result import as_result
from syft.types.uid import UID

from datasite_worker import bounds
from datasite_worker.bounds import Connections
from datasite_worker.credentials import AdminLogin
from datasite_worker.engine import Hosting
from datasite_worker.pysyft import durability, gate, logs, routes
from datasite_worker.pysyft.envelope import CheckedCall
from datasite_worker.pysyft.jobs import settling
from datasite_worker.pysyft.logins import Logins
from datasite_worker.pysyft.sessions import Sessions
from datasite_worker.refusals import Refusals
from fleet_common.contract import Access, StatusDocument
from fleet_common.logs import set_level

_STOP_PATIENCE = 1
_START_PATIENCE = 10.0
_ENDPOINT = "factory.status"
NO_KEYS = "This datasite does not give out the keys of accounts."


class SettledDatasite(Datasite):  # type: ignore[misc]  # PySyft has no types
    """PySyft's datasite without PySyft's job queue: it settles the jobs of its last life, and ``jobs.queue`` runs the
    new ones. PySyft's own listens on a port of every interface, without authentication, and writes the database every
    second."""

    interrupted: list[str]
    access = Access()

    def set_log_level(self, log_level: int | None) -> None:
        """PySyft's own, but by ``set_level``: every worker begins as quiet as the preloaded parent."""
        self.log_level = log_level or (logging.INFO if self.dev_mode else logging.CRITICAL)
        set_level(logging.getLogger(), self.log_level)
        for name in ("uvicorn", "uvicorn.access"):
            set_level(logging.getLogger(name), logging.CRITICAL)
        logs.follow(logging.getLogger("datasite_worker"))

    def init_queue_manager(self, queue_config: Any) -> None:
        self.interrupted = settling.settle(self)
        self.queue_manager = QueueManager(config=queue_config)
        create_default_worker_pool(self)

    def handle_api_call_with_unsigned_result(
        self, api_call: Any, job_id: UID | None = None, check_call_location: bool = True
    ) -> Any:
        """PySyft asks for a role where a call is blocking, and only there. Raises SyftException with the refusal."""
        role = ServiceRole.NONE
        if isinstance(api_call, SignedSyftAPICall):
            if not api_call.is_valid:
                raise SyftException(public_message="Your message signature is invalid")
            role = self._role(api_call)
            if why := self._refusal(api_call.message, role):
                raise SyftException(public_message=why)
        result = super().handle_api_call_with_unsigned_result(api_call, job_id, check_call_location)
        if role is not ServiceRole.ADMIN and _holds_keys(getattr(result, "value", result)):
            raise SyftException(public_message=NO_KEYS)
        return result

    def _role(self, api_call: Any) -> ServiceRole:
        """``routes`` has looked it up; nobody has for a client in this process."""
        if isinstance(api_call, CheckedCall):
            return api_call.role
        return self.get_role_for_credentials(credentials=api_call.credentials)

    def _refusal(self, call: Any, role: ServiceRole) -> str:
        if call.server_uid != self.id:
            return "This datasite does not forward calls to other servers."
        return gate.refusal(call.path, role.name, self.access, gate.pysyft_roles(), blocking=call.blocking)

    def add_consumer_for_service(self, *_args: Any, **_kwargs: Any) -> None:
        """PySyft's pools of workers stay for clients to see; nothing consumes for them."""

    def add_api_call_to_queue(self, api_call: Any, parent_job_id: UID | None = None) -> Any:
        """PySyft makes a job's result on behalf of its caller, whom it knows by blocking calls alone: after a restart
        the first call of a client that goes on with the objects it has may be one for the queue."""
        who = api_call.credentials
        context = AuthedServiceContext(
            server=self, credentials=who, role=self.get_role_for_credentials(credentials=who)
        )
        AuthServerContextRegistry.set_server_context(self.id, context, who)
        return super().add_api_call_to_queue(api_call, parent_job_id)


def _holds_keys(value: Any) -> bool:
    """Whether accounts would leave with their signing keys: some of PySyft's methods hand out any row by its id."""
    several = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    return any(isinstance(one, User | UserV1) for one in several)


def make_server(hosting: Hosting) -> SettledDatasite:
    """PySyft's server with its fixed identity. It shows as many workers as jobs may run, as each runs one."""
    os.environ["SYFT_TEMP_ROOT"] = str(hosting.state / "syft")
    made = assemble(SettledDatasite, hosting)
    made.access = hosting.access
    _open_registration(made)
    durability.of_database(made)
    return made


def assemble(kind: type[SettledDatasite], hosting: Hosting) -> SettledDatasite:
    """The same, of any ``kind``, wherever that has its database."""
    who = hosting.identity
    return kind(
        name=hosting.name,
        id=UID.from_string(who.uid),
        signing_key=SyftSigningKey(signing_key=SigningKey(bytes.fromhex(who.signing_key))),
        root_email=who.root_email,
        root_username="fleet",
        root_password=who.root_password,
        processes=1,
        n_consumers=hosting.sessions,
        in_memory_workers=True,
        association_request_auto_approval=hosting.auto_approval,
        dev_mode=hosting.dev_mode,
    )


def _open_registration(server: SettledDatasite) -> None:
    """PySyft keeps a switch of its own for it, which follows ours."""
    if server.settings.signup_enabled != server.access.registration:
        context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
        server.services.settings.allow_guest_signup(context, enable=server.access.registration)


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


def make_app(
    server: SettledDatasite,
    status: Callable[[], StatusDocument],
    *,
    probe_key: str = "",
    refusals: Refusals | None = None,
    connections: Connections | None = None,
) -> Starlette:
    """PySyft's routes under /api/v2, and the public status beside them."""
    desk = routes.Desk(
        server,
        server.access,
        status,
        probe_key,
        refusals or Refusals(),
        connections or Connections(),
        Sessions(bytes(server.signing_key.signing_key)),
        Logins(server),
    )
    return routes.make_app(desk)


class Serving:
    """The app served on ``listening`` by a thread of this process, from now on."""

    def __init__(self, app: Starlette, listening: socket.socket, connections: Connections) -> None:
        config = uvicorn.Config(
            app,
            http=bounds.protocol(connections),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # an address that the sender chose would be the one that is counted and told
            lifespan="off",
            timeout_graceful_shutdown=_STOP_PATIENCE,
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


def withdraw(server: Datasite) -> None:
    """End ``server``, which was never served, and leave nothing of it."""
    _said.pop(server.id, None)
    contexts = AuthServerContextRegistry.__server_context_registry__
    for key in [key for key, context in contexts.items() if context.server is server]:
        del contexts[key]
    for thread in [thread for thread, reload in CODE_RELOADER.items() if _reloads(reload, server)]:
        del CODE_RELOADER[thread]
    server.db.engine.dispose()
    server.close()


def _reloads(reload: Callable[..., None], server: Datasite) -> bool:
    return inspect.getclosurevars(reload).nonlocals.get("self") is server


_said: dict[UID, Callable[[], dict[str, Any]]] = {}
_call_in_job = inspect.unwrap(APIService._call_in_jobs)


@as_result(SyftException)  # type: ignore[untyped-decorator]  # PySyft has no types
def _call(service: APIService, context: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
    if path == _ENDPOINT and context.server.id in _said:
        return _said[context.server.id]()
    if context.role is ServiceRole.GUEST:
        raise SyftException(public_message=f"Without an account you may not call {path}.")
    return _call_in_job(service, context, method, path, *args, **kwargs)


def _endpoint(settings: dict[str, Any]) -> Any:
    import syft as sy

    @sy.api_endpoint(path=_ENDPOINT, description="The status of this datasite.", settings=settings)
    def factory_status(context):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        return dict(context.settings)

    return factory_status
