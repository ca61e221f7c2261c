"""The connection to one datasite: PySyft's calls, retried for a limited time. Knows nothing of trainings.

The datasite may have carried out a call whose answer was lost. So only reads and uploads are retried, or calls whose
effect is looked up first. A training that is queued twice costs time, and changes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import requests
from syft.client.api import APIRegistry
from syft.client.client import HTTPConnection
from syft.client.datasite_client import DatasiteClient as SyftClient
from syft.types.errors import SyftException

from central.client import transport
from central.client.errors import ClientError, LoginFailed, Unreachable

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 2.0
_PASSING = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
ADMIN = "ADMIN"


class Connection:
    """A login at a datasite. ``role`` is PySyft's name for the user's rights."""

    def __init__(
        self, url: transport.SiteURL, email: str, password: str, session: transport.Session, patience: float
    ) -> None:
        self.url: str = url.base_url
        self._patience = patience
        self._session = session
        self._queues: bool | None = None
        connection = transport.connection(url, session)
        metadata = self._patiently(lambda: _metadata(connection, self.url))
        key = self._patiently(lambda: _login(connection, self.url, email, password))
        self.name: str = metadata.name
        self.role: str = key.role.name
        self.syft: Any = SyftClient(connection=connection, metadata=metadata, credentials=key.signing_key)

    @property
    def services(self) -> Any:
        """PySyft's services for this user. The first use calls the datasite, so use it inside ``ask``."""
        return self.syft.api.services

    def call(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Call PySyft's service ``path``; see ``ask``."""
        return self.ask(lambda: attrgetter(path)(self.services)(*args, **kwargs))

    def ask(self, request: Callable[[], T]) -> T:
        """The result of ``request``, retried while the datasite does not answer.

        Raises Unreachable when it does not answer within our patience, ClientError when it refuses.
        """
        try:
            return self._patiently(lambda: self._with_api(request))
        except SyftException as error:
            raise ClientError(f"{self.name} refused the call: {error.public_message}") from error

    def queues(self) -> bool:
        """Whether a worker runs queued trainings. A plain PySyft datasite may have none."""
        if self._queues is None:
            self._queues = bool(self.call("worker.get_all"))
        return self._queues

    def _with_api(self, request: Callable[[], T]) -> T:
        """PySyft's objects look up their connection by datasite and user, so register ours: another client may have
        registered its own."""
        APIRegistry.set_api_for(server_uid=self.syft.id, user_verify_key=self.syft.verify_key, api=self.syft.api)
        return request()

    def _patiently(self, request: Callable[[], T]) -> T:
        give_up, wait = time.monotonic() + self._patience, _FIRST_WAIT
        while True:
            try:
                return request()
            except requests.exceptions.SSLError as error:
                raise Unreachable(_no_trust(self.url, error)) from error
            except _PASSING as error:
                if time.monotonic() + wait > give_up:
                    raise Unreachable(_away(self.url, self._patience, error)) from error
                logger.info("%s does not answer (%s); trying again", self.url, type(error).__name__)
            time.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT)

    def take_time(self, request: Callable[[], T]) -> T:
        """The result of ``request``, without a time limit and without a retry."""
        with self._session.unhurried():
            try:
                return self._with_api(request)
            except _PASSING as error:
                raise Unreachable(_away(self.url, 0.0, error)) from error


def _metadata(connection: HTTPConnection, url: str) -> Any:
    try:
        return connection.get_server_metadata(credentials=None)
    except (ValueError, TypeError) as error:
        raise Unreachable(f"{url} answers, but is not a PySyft datasite; check the host and the port") from error


def _login(connection: HTTPConnection, url: str, email: str, password: str) -> Any:
    try:
        key = connection.login(email=email, password=password)
    except SyftException as error:
        raise LoginFailed(
            f"{url} rejects the login of {email} ({error.public_message}); "
            "ask the datasite's owner for an account or a new password"
        ) from error
    if key is None:
        raise LoginFailed(f"{url} does not know {email}; ask the datasite's owner for an account")
    return key


def _away(url: str, patience: float, error: Exception) -> str:
    tried = f" (tried for {patience:g} s)" if patience else ""
    return f"{url} does not answer{tried}: {_reason(error)}; check that the datasite runs, then try again"


def _no_trust(url: str, error: Exception) -> str:
    return (
        f"no secure connection to {url}: {_reason(error)}; "
        "set ca=... to the authority's certificate, and client_cert=... if the datasite requires one"
    )


def _reason(error: Exception) -> str:
    """The innermost error, on one line: requests wraps it several times."""
    inner: Any = error
    while getattr(inner, "args", None) and isinstance(inner.args[0], BaseException):
        inner = inner.args[0]
    reason = getattr(inner, "reason", None)
    return " ".join(str(reason if isinstance(reason, BaseException) else inner).split())[:300]
