"""The datasite's link to the central dashboard: registration, and a heartbeat every interval, in a thread of its own.

A dashboard that is down, slow or broken costs the datasite nothing: every request has a time limit, and what failed is
tried again with an exponential back-off and jitter. Nothing that happens here ends the thread, or reaches the datasite.

Registration and heartbeat fail separately: many dashboards receive heartbeats on another port. A failed heartbeat does
not undo the registration. Two things lead to a new one: the dashboard does not know this datasite (404 to a heartbeat),
or it answers again after an outage. A dashboard that answers 404 to a registration only takes heartbeats. It is asked
again now and then, because it may have been starting up.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

import requests
import urllib3

from datasite_worker.means.load import current_load
from fleet_common.moments import now_iso

logger = logging.getLogger(__name__)

TIMEOUT = (3.0, 5.0)
"""Seconds to connect, and to wait for an answer."""
FAREWELL = (0.5, 0.5)
FIRST_RETRY = 1.0
LAST_RETRY = 60.0
ASK_AGAIN = 600.0
"""Seconds until a heartbeat-only central is asked again whether it registers."""
_NOT_OFFERED = (404, 405, 501)


@dataclass(frozen=True, slots=True)
class Profile:
    """What the centre learns about a datasite. Times are in seconds."""

    factory_name: str
    hostname: str
    port: int
    device: str
    dashboard_url: str
    heartbeat_url: str
    interval: float
    capabilities: dict[str, Any]
    region: str = ""
    location: str = ""


def registration_body(profile: Profile) -> dict[str, Any]:
    return {
        "factory_name": profile.factory_name,
        "factory_hostname": profile.hostname,
        "factory_port": profile.port,
        "device": profile.device,
        "status": "running",
        "capabilities": profile.capabilities,
        **_place(profile),
    }


def heartbeat_body(profile: Profile, status: str, latency_ms: float, activity: dict[str, Any]) -> dict[str, Any]:
    """Loads are percent of the host's, the latency milliseconds of the last exchange with the dashboard;
    ``activity`` is active_experiments and last_training_completion."""
    return {
        "factory_name": profile.factory_name,
        "hostname": profile.hostname,
        "port": profile.port,
        "device": profile.device,
        "timestamp": now_iso(),
        "status": status,
        "current_load": current_load(latency_ms),
        **_place(profile),
        **activity,
    }


def _place(profile: Profile) -> dict[str, str]:
    """Only the keys with a value: a dashboard need not know the others."""
    return {key: value for key, value in (("region", profile.region), ("location", profile.location)) if value}


def retry_delay(failures: int, chance: float) -> float:
    """Seconds to wait after that many failures in a row; ``chance`` in [0, 1) spreads the lines apart."""
    return min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(failures - 1, 16)) * (0.75 + 0.5 * chance)


class CentralLink:
    """``changed`` receives the fields of the status document that changed; ``answers`` says whether the datasite
    answers its own HTTP: one that does not beats no "operational"."""

    def __init__(
        self,
        profile: Profile,
        changed: Callable[[dict[str, Any]], None],
        answers: Callable[[], bool],
        activity: Callable[[], dict[str, Any]],
    ) -> None:
        self._profile = profile
        self._changed = changed
        self._answers = answers
        self._activity = activity
        self._session = _session(profile.dashboard_url)
        self._beats = _session(profile.heartbeat_url)
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="central", daemon=True)
        self._registered: bool | None = None
        self._registration_due: float | None = 0.0  # None: nothing more to do
        self._registration_failures = 0
        self._not_again_before = 0.0
        self._beat_due = 0.0
        self._beat_failures = 0
        self._last_status = ""  # of the last beat, when the dashboard took it
        self._latency_ms = 0.0

    @property
    def latency_ms(self) -> float:
        """Milliseconds of the last exchange with the dashboard; 0 before the first."""
        return self._latency_ms

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread and sign off at the dashboard, within about a second."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        if self._last_status:
            body = heartbeat_body(self._profile, "stopping", self._latency_ms, self._activity())
            self._post(_session(self._heartbeat_url), self._heartbeat_url, body, FAREWELL)

    def apply(self, interval: float, capabilities: dict[str, Any], region: str = "", location: str = "") -> None:
        """Apply new settings now. A new capability, region or location is registered again."""
        profile = replace(self._profile, interval=interval, capabilities=capabilities, region=region, location=location)
        if registration_body(profile) != registration_body(self._profile):
            self._registration_due = 0.0
        self._beat_due = min(self._beat_due, time.monotonic() + interval)
        self._profile = profile
        self._wake.set()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._round(time.monotonic())
            except Exception:
                logger.exception("the link to the dashboard failed; trying again in %.0f s", LAST_RETRY)
                self._beat_due = time.monotonic() + LAST_RETRY
                self._registration_due = self._beat_due if self._registration_due is not None else None
            self._wait()

    def _round(self, now: float) -> None:
        if self._registration_due is not None and now >= self._registration_due:
            self.register()
        if now >= self._beat_due:
            self.beat()

    def _wait(self) -> None:
        dues = [due for due in (self._beat_due, self._registration_due) if due is not None]
        self._wake.wait(max(0.05, min(dues) - time.monotonic()))
        self._wake.clear()

    # --- registration ---

    def register(self) -> bool:
        """Register once. True when the dashboard accepted it. Never raises."""
        url = f"{self._profile.dashboard_url.rstrip('/')}/register_factory"
        if self._registration_failures == 0:
            logger.info("registering with %s", shown(url))
        self._registration_due = None  # before the request, so that a wish for another one in the meantime is not lost
        code, why = self._post(self._session, url, registration_body(self._profile), TIMEOUT)
        if code is not None and code < 300:
            self._note_registration(True, "registered")
        elif code in _NOT_OFFERED:
            self._note_registration(False, f"heartbeat-only: the dashboard offers no registration ({code})")
            self._registration_due = time.monotonic() + ASK_AGAIN
        else:
            self._not_registered(why)
        return self._registered is True

    def _note_registration(self, registered: bool, words: str) -> None:
        level = logging.INFO if self._registered is not registered or registered else logging.DEBUG
        logger.log(level, "%s with %s", words, shown(self._profile.dashboard_url))
        self._registered = registered
        self._registration_failures = 0
        self._not_again_before = time.monotonic() + LAST_RETRY
        self._changed({"registered": registered, "registration": words})

    def _not_registered(self, why: str) -> None:
        self._registration_failures += 1
        if self._registration_failures == 1:
            logger.warning("not registered: %s; trying again", why)
        self._registration_due = time.monotonic() + retry_delay(self._registration_failures, chance())
        self._registered = None
        self._changed({"registered": None, "registration": f"not registered: {why}"})

    def _register_again(self, why: str) -> None:
        """Register again soon, unless the dashboard only takes heartbeats or has taken none since the last
        registration."""
        if self._registered and self._registration_due is None and time.monotonic() >= self._not_again_before:
            logger.info("registering again: %s", why)
            self._registration_due = 0.0

    # --- heartbeat ---

    @property
    def _heartbeat_url(self) -> str:
        return f"{(self._profile.heartbeat_url or self._profile.dashboard_url).rstrip('/')}/heartbeat"

    def beat(self) -> bool:
        """Send one heartbeat and schedule the next. True when the dashboard accepted it. Never raises."""
        status = "operational" if self._answers() else "degraded"
        body = heartbeat_body(self._profile, status, self._latency_ms, self._activity())
        code, why = self._post(self._beats, self._heartbeat_url, body, TIMEOUT)
        reached = code is not None and code < 300
        if reached:
            self._beaten(status)
        else:
            self._not_beaten(code, why)
        return reached

    def _beaten(self, status: str) -> None:
        logger.log(logging.DEBUG if status == self._last_status else logging.INFO, "heartbeat: %s", status)
        self._last_status = status
        if self._beat_failures:
            self._not_again_before = 0.0
            self._register_again(f"the dashboard answers again, after {self._beat_failures} failed heartbeats")
        self._beat_failures = 0
        self._not_again_before = 0.0
        self._beat_due = time.monotonic() + self._profile.interval
        self._changed({"last_heartbeat": now_iso(), "heartbeat_error": ""})

    def _not_beaten(self, code: int | None, why: str) -> None:
        self._beat_failures += 1
        self._last_status = ""
        level = logging.WARNING if self._beat_failures == 1 else logging.DEBUG
        logger.log(level, "heartbeat failed: %s", why)
        if code == requests.codes.not_found:
            self._register_again("the dashboard does not know this datasite")
        self._beat_due = time.monotonic() + min(self._profile.interval, retry_delay(self._beat_failures, chance()))
        self._changed({"heartbeat_error": why})

    def _post(
        self, session: requests.Session, url: str, body: dict[str, Any], timeout: tuple[float, float]
    ) -> tuple[int | None, str]:
        began = time.monotonic()
        try:
            # Streamed and closed: of an endless answer not one byte of the body is read.
            answer = session.post(url, json=body, timeout=timeout, stream=True, allow_redirects=False)
            answer.close()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            return None, f"{shown(url)}: {in_words(error)}"
        self._latency_ms = (time.monotonic() - began) * 1000
        return answer.status_code, f"{shown(url)} answered {answer.status_code}"


def _session(url: str) -> requests.Session:
    """A proxy in the environment is for the outside world, not for a dashboard on this host."""
    session = requests.Session()
    session.trust_env = _split(url).hostname not in ("localhost", "127.0.0.1", "::1")
    return session


def chance() -> float:
    return random.random()  # noqa: S311 - spreads load, hides nothing


def shown(url: str) -> str:
    """The URL without a password in it."""
    parts = _split(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _split(url: str) -> SplitResult:
    """The parts of a URL. An invalid one fails when it is used, not here."""
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", url, "", "")


def in_words(error: Exception) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return f"its certificate is not accepted ({error.args[0] if error.args else error})"
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {TIMEOUT[0]:.0f} s"
    if isinstance(error, requests.Timeout):
        return f"no answer within {TIMEOUT[1]:.0f} s"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached (ConnectionError)"
    return f"{type(error).__name__}: {error}"
