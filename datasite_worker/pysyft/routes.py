"""The datasite's HTTP, in place of PySyft's own routes: those that a client needs, and no others.

    GET  /factory.status          anybody: how the datasite is; the supervisor, with its secret: all of it
    GET  /api/v2/                 anybody: that it is up
    GET  /api/v2/metadata         anybody: what PySyft's client has to know before it logs in
    POST /api/v2/login            anybody: e-mail and password against the user's key
    GET  /api/v2/api              users who have shown their key: what they may call
    POST /api/v2/api_call         users: a signed call
    POST /api/v2/register         an owner, who sends his own key along: an account; anybody, where the owner has opened
                                  it: an account without rights to manage

Nothing of a call is decoded before its signature is found good and its sender is found to be a user.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from fastapi.encoders import jsonable_encoder
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from syft import serialize
from syft.client.api import SyftAPIData
from syft.server.credentials import SyftSigningKey, SyftVerifyKey
from syft.service.context import ServerServiceContext
from syft.service.metadata.server_metadata import ServerMetadataJSON
from syft.service.response import SyftError
from syft.service.user.user import UserCreate, UserPrivateKey
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException

from datasite_worker import bounds
from datasite_worker.bounds import Bounds, Connections, TooLarge
from datasite_worker.pysyft import catalogue, decoding, envelope, gate
from datasite_worker.pysyft.bulk import Relief
from datasite_worker.pysyft.descriptions import Descriptions
from datasite_worker.pysyft.frames import Undecodable
from datasite_worker.pysyft.logins import Busy, Logins
from datasite_worker.pysyft.sessions import COOKIE, LIFETIME, Sessions
from datasite_worker.refusals import Refusals
from fleet_common.contract import PROBE_HEADER, STATUS_PATH, Access, StatusDocument

logger = logging.getLogger(__name__)

_API = "/api/v2"
_CALL, _LOGIN, _REGISTER = f"{_API}/api_call", f"{_API}/login", f"{_API}/register"
_REGISTRATION = 1024 * 1024
"""Bytes of a registration."""
_LONGEST_WORD = 1024
_PACKED = "application/octet-stream"
NO_REGISTRATION = "You have no permission to create an account. Please contact the datasite's owner."
_UNSIGNED = "Your message signature is invalid"


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes work with. ``status`` is asked for each answer; ``probe_key`` is the supervisor's secret, empty
    where there is none."""

    server: Any
    access: Access
    status: Callable[[], StatusDocument]
    probe_key: str
    refusals: Refusals
    connections: Connections
    sessions: Sessions
    logins: Logins
    room: bounds.Room = field(default_factory=bounds.Room)
    relief: Relief = field(default_factory=Relief)
    descriptions: Descriptions = field(default_factory=Descriptions)

    def role(self, key: SyftVerifyKey | SyftSigningKey) -> ServiceRole:
        return self.server.get_role_for_credentials(credentials=key)

    def refuse(self, request: Request, why: str) -> bool:
        """Count and tell it; whether there is room in the log for more of it."""
        return self.refusals.call(why, _address(request), time.monotonic())


def make_app(desk: Desk) -> Starlette:
    """PySyft's wire, and the public status beside it."""
    routes = [
        Route(STATUS_PATH, _route(desk, _status)),
        Route(f"{_API}/", _route(desk, _root)),
        Route(f"{_API}/metadata", _route(desk, _metadata)),
        Route(f"{_API}/api", _route(desk, _methods)),
        Route(_LOGIN, _route(desk, _login), methods=["POST"]),
        Route(_CALL, _route(desk, _call), methods=["POST"]),
        Route(_REGISTER, _route(desk, _register), methods=["POST"]),
    ]
    limits = {_CALL: desk.access.max_upload, _REGISTER: _REGISTRATION}
    return Starlette(routes=routes, middleware=[Middleware(Bounds, limits=limits, connections=desk.connections)])


def _route(desk: Desk, handler: Callable[[Desk, Request], Any]) -> Callable[[Request], Any]:
    """``handler``, whose failures are written down: PySyft's own go nowhere."""

    async def answer(request: Request) -> Response:
        try:
            response: Response = await handler(desk, request)
        except (TooLarge, bounds.TooSlow):
            desk.refuse(request, f"{request.url.path}: the body is too large or arrives too slowly")
            raise
        except bounds.NoRoom:
            words = "too many uploads are in progress; try again later"
            return PlainTextResponse(words, status_code=503, headers={"retry-after": "10"})
        except Undecodable as why:
            desk.refuse(request, f"{request.url.path}: {why}")
            return PlainTextResponse(f"not accepted: {why}", status_code=400)
        except Exception:
            if desk.refuse(request, f"{request.url.path} failed; see the datasite's log for the reason"):
                logger.exception("%s %s failed", request.method, request.url.path)
            return PlainTextResponse("the call failed in the datasite; its log has the reason", status_code=500)
        return response

    return answer


# --- for everybody ---


async def _status(desk: Desk, request: Request) -> Response:
    told = desk.status()
    given = request.headers.get(PROBE_HEADER, "")
    if desk.probe_key and hmac.compare_digest(given.encode(), desk.probe_key.encode()):
        desk.connections.vouch(_client(request))
        return Response(told.to_json(), media_type="application/json")
    return Response(told.to_public_json(), media_type="application/json")


async def _root(_desk: Desk, _request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _metadata(desk: Desk, _request: Request) -> Response:
    return await run_in_threadpool(lambda: JSONResponse(jsonable_encoder(desk.server.metadata.to(ServerMetadataJSON))))


async def _login(desk: Desk, request: Request) -> Response:
    email, password = _credentials(await request.body())
    try:
        answer = await desk.logins.check(email, password)
    except Busy:
        return PlainTextResponse(
            "too many logins are waiting; try again later", status_code=503, headers={"retry-after": "5"}
        )
    response = _packed(answer)
    if isinstance(answer, UserPrivateKey):
        desk.connections.vouch(_client(request))
        cookie = desk.sessions.cookie(str(answer.signing_key.verify_key), time.time())
        response.set_cookie(COOKIE, cookie, max_age=LIFETIME, path=_API, httponly=True, samesite="strict")
    else:
        desk.refusals.login(email, _address(request), time.monotonic())
    return response


def _credentials(body: bytes) -> tuple[str, str]:
    try:
        told = json.loads(body)
        email, password = told["email"], told["password"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Undecodable("a login must be a JSON object with email and password") from error
    if not isinstance(email, str) or not isinstance(password, str):
        raise Undecodable("email and password of a login must be text")
    if len(email) > _LONGEST_WORD or not email.isprintable():
        raise Undecodable("an e-mail address must have at most 1,024 characters, all printable")
    return email, password


async def _register(desk: Desk, request: Request) -> Response:
    body = await request.body()
    return await run_in_threadpool(_registered, desk, request, body)


def _registered(desk: Desk, request: Request, body: bytes) -> Response:
    asked = _new_user(body)
    owner = desk.role(asked.created_by) if asked.created_by is not None else ServiceRole.GUEST
    if owner < ServiceRole.DATA_OWNER:
        if not desk.access.registration:
            desk.refuse(request, NO_REGISTRATION)
            return _packed(SyftError(message=NO_REGISTRATION))
        asked.created_by, asked.mock_execution_permission = None, False
    if owner is not ServiceRole.ADMIN:
        asked.role = ServiceRole.DATA_SCIENTIST  # whatever was asked for
    asked.verify_key = None
    try:
        method = desk.server.services.user.register
        return _packed(method(context=ServerServiceContext(server=desk.server), new_user=asked))
    except SyftException as error:
        desk.refuse(request, error.public_message)
        return _packed(SyftError.from_public_exception(error))


def _new_user(body: bytes) -> UserCreate:
    try:
        with decoding.under(decoding.only(catalogue.REGISTRATION)):
            asked = decoding.decode(body)
    except ValidationError as error:
        raise Undecodable("the details of the new user are not valid") from error
    if type(asked) is not UserCreate:
        raise Undecodable("a registration must contain a new user")
    return asked


# --- for users ---


async def _methods(desk: Desk, request: Request) -> Response:
    key, version = (
        _key(request.query_params.get("verify_key", "")),
        request.query_params.get("communication_protocol", ""),
    )
    if version != "dev" and not re.fullmatch(r"[0-9]{1,4}", version):
        raise Undecodable("communication_protocol must be the number of PySyft's protocol")
    return await run_in_threadpool(_listed, desk, request, key, version if version == "dev" else int(version))


def _listed(desk: Desk, request: Request, key: SyftVerifyKey, version: int | str) -> Response:
    role = desk.role(key)
    cookie = request.cookies.get(COOKIE, "")
    if role is not ServiceRole.GUEST and not desk.sessions.is_proven(str(key), _address(request), cookie, time.time()):
        desk.refuse(request, f"{_API}/api for a key that the caller has not proved to own")
        return PlainTextResponse("log in first", status_code=401)
    api = desk.server.get_api(key, version)
    api.endpoints = {
        path: one
        for path, one in api.endpoints.items()
        if not gate.refusal(one.service_path, role.name, desk.access, gate.pysyft_roles())
    }
    if role is ServiceRole.GUEST:
        api.lib_endpoints = {}
    return Response(desk.descriptions.packed(api, role.name), media_type=_PACKED)


def _key(text: str) -> SyftVerifyKey:
    try:
        return SyftVerifyKey.from_string(text)
    except (ValueError, TypeError) as error:
        raise Undecodable("verify_key must be a key in hexadecimal") from error


async def _call(desk: Desk, request: Request) -> Response:
    with ExitStack() as room:
        body = await _body(desk, request, room)
        response = await run_in_threadpool(_answered, desk, request, body)
        desk.relief.after(max(len(body), len(response.body)))
        return response


async def _body(desk: Desk, request: Request, room: ExitStack) -> bytes:
    """The whole body. One that is longer than a stranger's may be has to name a user's key in its first bytes: nobody
    else makes this process keep it, nor takes up ``room``."""
    size, parts, got, known = bounds.announced(request.scope), [], 0, False
    async for part in request.stream():
        parts.append(part)
        got += len(part)
        if got > envelope.HEAD and not known:
            await run_in_threadpool(_must_be_users, desk, b"".join(parts)[: envelope.HEAD], size)
            known = True
            room.enter_context(desk.room.for_body(size))
    return b"".join(parts)


def _must_be_users(desk: Desk, head: bytes, size: int) -> None:
    if not size:
        raise Undecodable("a body of this size needs a Content-Length header")
    key = envelope.claimed_key(head, size)
    if key == desk.server.verify_key or desk.role(key) is ServiceRole.GUEST:
        raise TooLarge(f"a call without an account may have at most {envelope.HEAD} bytes; log in first")


def _answered(desk: Desk, request: Request, body: bytes) -> Response:
    sealed = envelope.read(body)
    if not sealed.is_signed():
        return _refused(desk, request, _UNSIGNED)
    role = desk.role(sealed.key)
    if role is ServiceRole.GUEST and not desk.access.guests:
        return _refused(desk, request, gate.refusal("", role.name, desk.access, gate.pysyft_roles()))
    if role is not ServiceRole.GUEST:
        desk.connections.vouch(_client(request))
        desk.sessions.saw(str(sealed.key), _address(request))
    call = _opened(sealed, role)
    try:
        return _packed(desk.server.handle_api_call(api_call=call))
    except SyftException as error:
        return _refused(desk, request, error.public_message)
    except Exception as error:  # PySyft fails at some calls that no client of its own makes
        logger.debug("a call failed", exc_info=True)
        return _refused(desk, request, f"the call failed ({type(error).__name__})")


def _opened(sealed: envelope.Envelope, role: ServiceRole) -> envelope.CheckedCall:
    rules = decoding.only(catalogue.GUEST_CALL) if role is ServiceRole.GUEST else decoding.WIRE
    try:
        return sealed.opened(rules, role)
    except Undecodable:
        raise
    except Exception as error:
        raise Undecodable(f"a value does not fit its type ({type(error).__name__})") from error


def _refused(desk: Desk, request: Request, why: str) -> Response:
    """PySyft's own kind of error, which its client raises with these words."""
    desk.refuse(request, why)
    return _packed(SyftAPIData(data=SyftError(message=why)).sign(desk.server.signing_key))


def _packed(answer: Any) -> Response:
    return Response(serialize(answer, to_bytes=True), media_type=_PACKED)


def _client(request: Request) -> tuple[str, int] | None:
    return (request.client.host, request.client.port) if request.client is not None else None


def _address(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"
