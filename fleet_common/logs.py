"""Log files of supervisor and workers, and the raw output of a worker, which has no terminal."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from fleet_common import folders

FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
OURS = ("datasite_worker", "central", "fleet_common")
"""The packages whose loggers write to a worker's log."""
_BYTES = 10 * 1024 * 1024
_BACKUPS = 5


def handlers_for(path: Path, console: TextIO | None) -> list[logging.Handler]:
    """Handlers that write to ``path``, with rotation, and to ``console``. Raises folders.Unsafe."""
    logging.raiseExceptions = False  # a full log disk must not stop a process
    handlers: list[logging.Handler] = [folders.RotatingLog(path, size=_BYTES, backups=_BACKUPS)]
    if console is not None:
        handlers.append(logging.StreamHandler(console))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(FORMAT))
    return handlers


def log_to(path: Path, *, console: bool) -> None:
    """Our loggers write to ``path``, and to standard error too with ``console``. PySyft turns the root logger to
    CRITICAL, so ours do not pass through it. Raises folders.Unsafe."""
    handlers = handlers_for(path, sys.stderr if console else None)
    for name in OURS:
        logger = logging.getLogger(name)
        for old in logger.handlers:
            old.close()
        logger.handlers = list(handlers)
        set_level(logger, logging.DEBUG if console else logging.INFO)
        logger.propagate = False


def set_level(logger: logging.Logger, level: int) -> None:
    """Set the level only if it differs: ``setLevel`` visits all loggers, more than a thousand with PySyft, and costs a
    forked process 4 MB of copied memory."""
    if logger.level != level:
        logger.setLevel(level)


_raw: list[Path] = []
"""The file of our raw output, once redirected."""


def redirect(raw: Path) -> None:
    """Send standard output and error to a file: a worker outlives its supervisor, so it must not use its pipes or
    terminal."""
    _raw[:] = [raw]
    with open(os.devnull, "rb") as nothing, folders.appended(raw) as output:
        os.dup2(nothing.fileno(), 0)
        for number in (1, 2):
            os.dup2(output.fileno(), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open for the life of the process
    sys.stdout, sys.stderr = _text(1), _text(2)
    faulthandler.enable(file=2)


class _Output(io.FileIO):
    """Drops output when the log disk is full: a print in PySyft or user code must not fail."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _text(number: int) -> io.TextIOWrapper:
    raw = io.BufferedWriter(_Output(number, "wb", closefd=False))
    return io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", line_buffering=True)


def trim_output() -> None:
    """Limit the raw output, to which user code may print for months, to the size of a log. Its last part is kept in a
    second file if there is space. All writers append, so truncating the file is safe."""
    for raw in _raw:
        if raw.exists() and raw.stat().st_size > _BYTES:
            with contextlib.suppress(OSError), open(folders.open_file(raw, os.O_RDWR), "rb+") as output:
                with contextlib.suppress(OSError), folders.durable(raw.with_name(f"{raw.name}.1")) as aside:
                    output.seek(-_BYTES, os.SEEK_END)
                    aside.write(output.read(_BYTES))
                output.truncate(0)
