"""Imported by the forkserver before the first fork, so that a dashboard forked from it starts in milliseconds.

Opens nothing and starts no thread: what is imported here is shared by every later child. ``gc.freeze`` keeps the
collector from writing to the shared pages.
"""

from __future__ import annotations

import gc
from importlib import import_module

MODULES = (
    "central.dashboard.app",
    "central.dashboard.server",
    "fleet_common.process",
    "fleet_common.pulse",
    "sqlalchemy.dialects.sqlite.pysqlite",
    # uvicorn imports these by name, when it is already serving
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)

for _name in MODULES:
    import_module(_name)
gc.freeze()
