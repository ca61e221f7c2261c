"""The datasite's link to the central dashboard: registration, and a heartbeat every interval, in a thread of its own.

A dashboard that is down, slow or broken costs the datasite nothing: every request has a time limit, and what failed is
tried again with an exponential back-off and jitter. A central that answers 404 to registration only takes heartbeats.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psutil
import requests

logger = logging.getLogger(__name__)

TIMEOUT = (3.0, 5.0)
"""Seconds to connect, and to be answered."""
FIRST_RETRY = 1.0
LAST_RETRY = 60.0


@dataclass(frozen=True, slots=True)
class Site:
    """What the centre is told of a datasite. Times are seconds."""

    factory_name: str
    hostname: str
    port: int
    device: str
    dashboard_url: str
    heartbeat_url: str
    interval: float
    capabilities: dict[str, Any]


def registration_body(site: Site) -> dict[str, Any]:
    return {
        "factory_name": site.factory_name,
        "factory_hostname": site.hostname,
        "factory_port": site.port,
        "device": site.device,
        "status": "running",
        "capabilities": site.capabilities,
    }


def heartbeat_body(site: Site, status: str, latency_ms: float) -> dict[str, Any]:
    """Loads are percent of the host's, the latency milliseconds of the last exchange with the dashboard."""
    return {
        "factory_name": site.factory_name,
        "hostname": site.hostname,
        "port": site.port,
        "device": site.device,
        "timestamp": now_iso(),
        "status": status,
        "current_load": {
            "cpu_usage": psutil.cpu_percent(),
            "memory_usage": psutil.virtual_memory().percent,
            "disk_usage": psutil.disk_usage(".").percent,
            "network_latency": round(latency_ms, 1),
        },
        "active_experiments": [],
        "last_training_completion": None,
    }


def now_iso() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def retry_delay(failures: int, chance: float) -> float:
    """Seconds to wait after that many failures in a row; ``chance`` in [0, 1) spreads the lines apart."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16)) * (0.75 + 0.5 * chance)


class CentralLink:
    """``changed`` receives the fields of the status document that changed; ``answers`` says whether the datasite
    answers its own HTTP: one that does not beats no "operational"."""

    def __init__(self, site: Site, changed: Callable[[dict[str, Any]], None], answers: Callable[[], bool]) -> None:
        self._site = site
        self._changed = changed
        self._answers = answers
        self._session = requests.Session()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="central", daemon=True)
        self._registered: bool | None = None
        self._registration_due = 0.0
        self._registration_failures = 0
        self._beat_failures = 0
        self._latency_ms = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and say good-bye, as far as that takes a second."""
        self._stop.set()
        self._thread.join(1.0)
        if self._registered is not None:
            self._beat("stopping", (0.5, 0.5))

    def _run(self) -> None:
        beat_due = 0.0
        while not self._stop.is_set():
            if self._registered is None and time.monotonic() >= self._registration_due:
                self.register()
            if time.monotonic() >= beat_due:
                beat_due = time.monotonic() + self.beat()
            due = min(beat_due, self._registration_due) if self._registered is None else beat_due
            self._stop.wait(max(0.05, due - time.monotonic()))

    def register(self) -> bool:
        """Register once; True when the dashboard took it."""
        url = f"{self._site.dashboard_url.rstrip('/')}/register_factory"
        logger.info("registering with %s", url) if self._registration_failures == 0 else None
        code, why = self._post(url, registration_body(self._site), TIMEOUT)
        if code is not None and code < 300:
            return self._note_registration(True, "registered")
        if code == requests.codes.not_found:
            return self._note_registration(False, "heartbeat-only: the dashboard offers no registration (404)")
        self._registration_failures += 1
        wait = retry_delay(self._registration_failures, random.random())  # noqa: S311 - spreads load, hides nothing
        self._registration_due = time.monotonic() + wait
        if self._registration_failures == 1:
            logger.warning("not registered: %s; trying again", why)
        self._changed({"registered": None, "registration": f"not registered: {why}"})
        return False

    def _note_registration(self, registered: bool, words: str) -> bool:
        self._registered = registered
        self._registration_failures = 0
        logger.info("%s with %s", words, self._site.dashboard_url)
        self._changed({"registered": registered, "registration": words})
        return registered

    def beat(self) -> float:
        """Beat once; the seconds until the next one."""
        failures = self._beat_failures
        self._beat("operational" if self._answers() else "degraded", TIMEOUT)
        if self._beat_failures == 0:
            return self._site.interval
        if failures == 0:
            return min(self._site.interval, FIRST_RETRY)
        return min(self._site.interval, retry_delay(self._beat_failures, random.random()))  # noqa: S311 - as above

    def _beat(self, status: str, timeout: tuple[float, float]) -> None:
        url = f"{(self._site.heartbeat_url or self._site.dashboard_url).rstrip('/')}/heartbeat"
        code, why = self._post(url, heartbeat_body(self._site, status, self._latency_ms), timeout)
        if code is not None and code < 300:
            self._beaten(status)
            return
        self._beat_failures += 1
        if self._beat_failures == 1:
            logger.warning("heartbeat failed: %s", why)
        # The dashboard was away, or has forgotten us: it is told anew who we are.
        self._registered = None
        self._registration_due = min(self._registration_due, time.monotonic() + FIRST_RETRY)
        self._changed({"heartbeat_error": why})

    def _beaten(self, status: str) -> None:
        level = logging.INFO if self._beat_failures else logging.DEBUG
        logger.log(level, "heartbeat: %s", status)
        self._beat_failures = 0
        self._changed({"last_heartbeat": now_iso(), "heartbeat_error": ""})

    def _post(self, url: str, body: dict[str, Any], timeout: tuple[float, float]) -> tuple[int | None, str]:
        began = time.monotonic()
        try:
            answer = self._session.post(url, json=body, timeout=timeout, stream=True, allow_redirects=False)
        except requests.RequestException as error:
            return None, f"{url}: {type(error).__name__}"
        answer.close()
        self._latency_ms = (time.monotonic() - began) * 1000
        return answer.status_code, f"{url} answered {answer.status_code}"
