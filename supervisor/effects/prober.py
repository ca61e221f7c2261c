"""Asks workers how they are, over their own HTTP. Every probe has its own time limit; none waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx

from datasite_worker.contract import STATUS_PATH, parse_status
from supervisor.effects.service import ServiceThread
from supervisor.facts import ProbeAnswered
from supervisor.orders import Probe
from supervisor.spec import WorkerSpec

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "localhost": "127.0.0.1"}  # noqa: S104 - compared, not bound


class Prober:
    """``tell`` receives each ``ProbeAnswered`` from the service thread."""

    def __init__(self, service: ServiceThread, tell: Callable[[ProbeAnswered], None]) -> None:
        self._service = service
        self._tell = tell
        # A fresh connection each time: a probe asks whether the worker accepts one. The environment's proxies
        # are for the outside world, never for our own workers.
        self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    def probe(self, order: Probe, spec: WorkerSpec) -> None:
        self._service.submit(self._ask(order, probe_url(spec)))

    async def _ask(self, order: Probe, url: str) -> None:
        try:
            async with asyncio.timeout(order.timeout):
                answer = await self._client.get(url, timeout=order.timeout)
            self._tell(_judge(order, answer))
        except (TimeoutError, httpx.TimeoutException):
            self._tell(_failed(order, f"no answer within {order.timeout:g} s"))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            self._tell(_failed(order, str(error) or type(error).__name__))


def probe_url(spec: WorkerSpec) -> str:
    """Where this host reaches the worker, whatever it is told to bind."""
    host = _EVERYWHERE.get(spec.hostname, spec.hostname)
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"http://{host}:{spec.port}{STATUS_PATH}"


def _judge(order: Probe, answer: httpx.Response) -> ProbeAnswered:
    if answer.status_code != httpx.codes.OK:
        return _failed(order, f"answered HTTP {answer.status_code}")
    try:
        status = parse_status(answer.content)
    except ValueError:
        return _failed(order, "answered, but not as a worker of ours")
    if (status.factory_name, status.generation) != (order.name, order.generation):
        return _failed(order, f"another process answers on the port ({status.factory_name}, pid {status.pid})")
    return ProbeAnswered(order.name, order.generation, status)


def _failed(order: Probe, reason: str) -> ProbeAnswered:
    return ProbeAnswered(order.name, order.generation, None, reason)
