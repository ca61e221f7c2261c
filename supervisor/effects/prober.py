"""Probes workers over their own HTTP. Every probe has its own time limit; none waits for another.

It uses h11 and a plain socket: a fleet is probed for months, and a whole HTTP client would be most of the work. Each
probe opens a new connection, because it checks whether the worker accepts one.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

import h11

from fleet_common.contract import LARGEST_STATUS, PROBE_HEADER, STATUS_PATH, parse_status
from fleet_common.untrusted import Unfit
from supervisor.effects.probe_keys import ProbeKeyFiles
from supervisor.effects.service import ServiceThread
from supervisor.facts import ProbeAnswered
from supervisor.orders import Probe
from supervisor.spec import WorkerSpec

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "localhost": "127.0.0.1"}  # noqa: S104 - compared, not bound
_BLOCK = 65536


class Prober:
    """``tell`` receives each ``ProbeAnswered`` from the service thread. ``keys``: without one, a worker tells less."""

    def __init__(self, service: ServiceThread, tell: Callable[[ProbeAnswered], None], keys: ProbeKeyFiles) -> None:
        self._service = service
        self._tell = tell
        self._keys = keys

    def probe(self, order: Probe, spec: WorkerSpec) -> None:
        self._service.submit(self._ask(order, *address(spec)))

    async def _ask(self, order: Probe, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(order.timeout):
                code, body = await _get(host, port, STATUS_PATH, {PROBE_HEADER: self._keys.of(order.name)})
            answer = _judge(order, code, body)
            if answer.status is None:
                self._keys.forget(order.name)
            self._tell(answer)
        except TimeoutError:
            self._tell(_failed(order, f"no answer within {order.timeout:g} s"))
        except Exception as error:  # noqa: BLE001 - whatever a stranger on the port has sent, the engine gets an answer
            self._tell(_failed(order, _words(error)))


def address(spec: WorkerSpec) -> tuple[str, int]:
    """The address at which this host reaches the worker."""
    return _EVERYWHERE.get(spec.hostname, spec.hostname), spec.port


async def _get(host: str, port: int, path: str, more: Mapping[str, str]) -> tuple[int, bytes]:
    """Status code and body. Raises OSError, h11.ProtocolError, and ValueError for an answer without end."""
    loop = asyncio.get_running_loop()
    family, _, _, _, where = await _resolved(loop, host, port)
    with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        await loop.sock_connect(connection, where)
        http = h11.Connection(h11.CLIENT)
        named = f"[{host}]" if ":" in host else host
        headers = [("Host", f"{named}:{port}"), ("Connection", "close"), *more.items()]
        request = h11.Request(method="GET", target=path, headers=headers)
        await loop.sock_sendall(connection, (http.send(request) or b"") + (http.send(h11.EndOfMessage()) or b""))
        return await _answer(http, lambda: loop.sock_recv(connection, _BLOCK))


async def _resolved(loop: asyncio.AbstractEventLoop, host: str, port: int) -> Any:
    """The first address of ``host``; an address itself is not looked up."""
    if host.replace(".", "").isdigit():
        return socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, port)
    return (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]


async def _answer(http: h11.Connection, receive: Callable[[], Awaitable[bytes]]) -> tuple[int, bytes]:
    code, body = 0, b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await receive())
        elif isinstance(event, h11.Response):
            code = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > LARGEST_STATUS:
                raise ValueError("the answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return code, body
        elif not isinstance(event, h11.InformationalResponse):
            raise ConnectionError("the connection closed without an answer")


def _judge(order: Probe, code: int, body: bytes) -> ProbeAnswered:
    if code != HTTPStatus.OK:
        return _failed(order, f"answered HTTP {code}")
    status = parse_status(body)
    if isinstance(status, Unfit):
        return _failed(order, "the answer is not from a worker of this fleet")
    if (status.factory_name, status.generation) != (order.name, order.generation):
        return _failed(order, f"another process answers on the port ({status.factory_name}, pid {status.pid})")
    return ProbeAnswered(order.name, order.generation, status)


def _words(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return str(error) or type(error).__name__


def _failed(order: Probe, reason: str) -> ProbeAnswered:
    return ProbeAnswered(order.name, order.generation, None, reason)
