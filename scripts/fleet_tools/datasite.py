"""One datasite as its neighbours reach it: over HTTP, and through PySyft's client. It changes nothing.

PySyft is imported by ``login`` only.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet_common.contract import PROBE_HEADER, STATUS_PATH
from fleet_common.layout import WorkerFolder

METADATA = "/api/v2/metadata"
"""PySyft's own route that answers without a login."""


def get(port: int, path: str, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bytes | None:
    """The body of a 200 answer on a connection of its own; None for anything else."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return body if answer.status == http.HTTPStatus.OK else None


def status(port: int, state: Path | None = None) -> dict[str, Any] | None:
    """What ``GET /factory.status`` answers; None while nothing does. Whoever names the ``state`` folder, where the
    datasite's key is, gets the whole of it."""
    headers = {}
    if state is not None:
        with contextlib.suppress(OSError):
            headers = {PROBE_HEADER: WorkerFolder(state).probe_key.read_text()}
    body = get(port, STATUS_PATH, headers=headers)
    return dict(json.loads(body)) if body else None


def login(port: int, admin: Path) -> Any:
    """PySyft's client of the datasite's owner; ``admin`` is the file with that login."""
    import syft as sy

    kept = json.loads(admin.read_text())
    return sy.login(url="http://127.0.0.1", port=port, email=kept["email"], password=kept["password"])
