"""The forkserver imports this before the first fork, so that a dashboard forked from it starts in milliseconds.

Opens nothing and starts no thread, because every later child shares what is imported here. ``gc.freeze`` keeps the
garbage collector from writing to the shared pages.
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
    # uvicorn imports these by name, but only when it serves
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
)

for _name in MODULES:
    import_module(_name)
gc.freeze()
