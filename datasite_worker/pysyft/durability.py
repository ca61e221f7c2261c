"""What a client was told is stored survives a power cut: it is on the disk before the answer goes out.

PySyft asks SQLite to flush only now and then (``synchronous = 1``), and does not flush the files beside the database.
This decides nothing about what is stored.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Any

from sqlalchemy import event
from syft.service.blob_storage.service import BlobStorageService

_PATIENCE = 60
"""Seconds to wait for another process that writes; PySyft's five are soon over while a large result is written."""


def of_database(server: Any) -> None:
    """Every connection flushes each commit, and waits long for others. PySyft's own settings are on its first
    connection only."""
    engine = server.db.engine
    event.listen(engine, "connect", _settle)
    engine.dispose()


def _settle(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA busy_timeout = {_PATIENCE}000")


def of_files() -> None:
    """Once in a process, before anything is served; again is no harm."""
    if not hasattr(BlobStorageService.write_to_disk, "flushed"):
        BlobStorageService.write_to_disk = _flushed(BlobStorageService.write_to_disk)


def _flushed(write: Any) -> Any:
    @functools.wraps(write)
    def write_to_disk(service: Any, context: Any, uid: Any, data: bytes, **protocol: Any) -> Any:
        answer = write(service, context=context, uid=uid, data=data, **protocol)
        entry = service.stash.get_by_uid(credentials=context.credentials, uid=uid).unwrap()
        flush(Path(entry.location.path))
        return answer

    write_to_disk.flushed = True  # type: ignore[attr-defined]
    return write_to_disk


def flush(path: Path) -> None:
    """The file's content, and its name in its folder."""
    for place, flags in ((path, os.O_RDONLY), (path.parent, os.O_RDONLY | os.O_DIRECTORY)):
        fd = os.open(place, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
