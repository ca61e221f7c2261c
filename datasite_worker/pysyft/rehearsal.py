"""Makes one datasite in the preloaded parent and throws it away, so that shared work is done only once.

PySyft and its libraries compute and cache a lot at first use: tables, compiled statements, route schemas, subclass
checks. A forked worker that does so writes to pages that it would otherwise share: 10 MB each, and a slower start.
Touches no disk, opens no socket and starts no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from syft.protocol.data_protocol import get_data_protocol
from syft.service.metadata.server_metadata import ServerMetadataJSON

from datasite_worker.credentials import AdminLogin, draw_identity
from datasite_worker.engine import Hosting
from datasite_worker.pysyft import decoding, logs, plain_errors, server
from fleet_common.contract import STATUS_PATH, StatusDocument

logger = logging.getLogger(__name__)

_BY_NAME = (
    "anyio._backends._asyncio",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
)
"""What the HTTP server imports by name when it begins to serve."""


def prepare() -> None:
    """What each worker would otherwise do by itself, in PySyft's modules."""
    decoding.install()
    plain_errors.install()
    logs.set_levels()
    # PySyft reads its protocol's history on the first request: once here, instead of 0.1 s and 12 MB in every worker.
    get_data_protocol()


def rehearse() -> None:
    """Without it workers are larger and slower, but work. So a failure is only logged."""
    try:
        for name in _BY_NAME:
            import_module(name)
        with _unheard():
            _perform()
    except Exception:
        logger.warning("cannot prepare PySyft's server in advance; datasites will need more memory", exc_info=True)


class _InMemory(server.SettledDatasite):
    """PySyft takes the folder "." for a database in memory."""

    def get_temp_dir(self, dir_name: str = "") -> Path:  # noqa: ARG002 - PySyft's signature
        return Path()


def _perform() -> None:
    hosting = Hosting("rehearsal", draw_identity(), Path(), dev_mode=False, auto_approval=True, sessions=1)
    made = server.assemble(_InMemory, hosting)
    try:
        server.create_admin(made, AdminLogin("admin@fleet.example.com", "rehearsal", "rehearsal"))
        server.offer_status(made, dict)
        app = server.make_app(made, lambda: StatusDocument("rehearsal", "", 0, "", "starting"))
        asyncio.run(_ask(app, STATUS_PATH))
        made.metadata.to(ServerMetadataJSON)
    finally:
        server.withdraw(made)


async def _ask(app: Starlette, path: str) -> None:
    """One GET, as uvicorn would hand it over."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: MutableMapping[str, Any]) -> None:
        pass

    await app(scope, receive, send)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """PySyft prints and logs what it does."""
    disabled = logging.root.manager.disable
    logging.disable()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(disabled)
