"""PySyft's connection, with TLS on any port, our own certificates, and a time limit on every call.

PySyft's client drops the port of an https URL and supports neither a private CA nor a client certificate. Its calls do
not even use its own session.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from syft import deserialize, serialize
from syft.client.client import HTTPConnection
from syft.types.server_url import ServerURL

from datasite_worker.pysyft import decoding

ClientCert = str | Path | tuple[str | Path, str | Path]

_CONNECT = 10.0
"""Seconds for a connection. A datasite that is up needs milliseconds."""

_METADATA = "/api/v2/metadata"
"""What PySyft tells everybody, without a login."""


class SiteURL(ServerURL):  # type: ignore[misc]  # PySyft has no types
    """A URL that keeps its port. PySyft copies the URL for each request, and its own copy turns every https port into
    443."""

    def __copy__(self) -> SiteURL:
        return SiteURL(self.protocol, self.host_or_ip, self.port, self.path, self.query)


def parsed(url: str, port: int | None) -> SiteURL:
    """The URL of a datasite. Raises ValueError, which says what is wrong."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not the URL of a datasite; write it as http://host:port or https://host:port")
    if port is not None and parts.port not in (None, port):
        raise ValueError(f"{url!r} and port {port} contradict each other; name the port once")
    standard = 443 if parts.scheme == "https" else 80
    return SiteURL(parts.scheme, parts.hostname, port or parts.port or standard)


class Session(requests.Session):
    """A session with our certificates. PySyft sets the system's authorities for each request; this overrides that."""

    def __init__(
        self, ca: str | Path | None, client_cert: ClientCert | None, timeout: float, connect: float = _CONNECT
    ) -> None:
        super().__init__()
        self.cert = _as_text(client_cert)
        self._trusted = True if ca is None else str(ca)
        self._timeout = timeout
        self._connect = connect
        self._thread = threading.local()
        for scheme in ("http://", "https://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=32))

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["verify"] = self._trusted
        kwargs["timeout"] = (self._connect, None if getattr(self._thread, "unhurried", False) else self._timeout)
        return super().request(method, url, *args, **kwargs)

    @contextmanager
    def unhurried(self) -> Iterator[None]:
        """Inside it, answers have no time limit in this thread."""
        self._thread.unhurried = True
        try:
            yield
        finally:
            self._thread.unhurried = False


def _as_text(client_cert: ClientCert | None) -> str | tuple[str, str] | None:
    if client_cert is None or isinstance(client_cert, str):
        return client_cert
    if isinstance(client_cert, Path):
        return str(client_cert)
    return str(client_cert[0]), str(client_cert[1])


def session(
    ca: str | Path | None, client_cert: ClientCert | None, timeout: float, connect: float = _CONNECT
) -> Session:
    """The session for PySyft's connection. Raises FileNotFoundError for a missing certificate."""
    for file in filter(None, (ca, *(client_cert if isinstance(client_cert, tuple) else (client_cert,)))):
        if not Path(file).exists():
            raise FileNotFoundError(f"certificate not found: {file}")
    return Session(ca, client_cert, timeout, connect)


class SiteConnection(HTTPConnection):  # type: ignore[misc]  # PySyft has no types
    """PySyft's connection, with calls that use its session too."""

    __canonical_name__ = "SiteConnection"
    __version__ = 1

    def make_call(self, signed_call: Any) -> Any:
        response = self.session.post(
            str(self.api_url), data=serialize(signed_call, to_bytes=True), headers=self.headers
        )
        if response.status_code != 200:
            raise requests.ConnectionError(f"{self.api_url} answered {response.status_code}: {response.text[:200]}")
        return deserialize(response.content, from_bytes=True)


def connection(url: SiteURL, through: Session) -> SiteConnection:
    """PySyft's connection to ``url``. Answers are decoded as strictly as a datasite decodes calls."""
    decoding.install()
    connected = SiteConnection(url=url)
    connected.session_cache = through
    return connected


def answers(url: SiteURL, through: Session) -> bool:
    """Whether a PySyft server answers there. The session's time limit says how soon."""
    try:
        return bool(through.get(f"{url.base_url}{_METADATA}").ok)
    except requests.RequestException:
        return False
