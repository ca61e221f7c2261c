"""Writes errors of PySyft and its HTTP server to the datasite's log, where neither would report them.

At most ``MOST_LINES`` a minute, because anybody can cause these lines.
"""

from __future__ import annotations

import logging
import time

from fleet_common.logs import set_level

LEVELS = {"syft": logging.ERROR, "uvicorn.error": logging.WARNING}
MOST_LINES = 20
_PERIOD = 60.0


def set_levels() -> None:
    """In the preloaded parent already: a change of level walks through all loggers there are."""
    for name, level in LEVELS.items():
        set_level(logging.getLogger(name), level)


def follow(ours: logging.Logger) -> None:
    """They write where ``ours`` writes, from now on."""
    set_levels()
    for name in LEVELS:
        logger = logging.getLogger(name)
        logger.handlers = [_Relay(ours)]
        logger.propagate = False


class _Relay(logging.Handler):
    """Passes a limited number of lines in each period."""

    def __init__(self, ours: logging.Logger) -> None:
        super().__init__()
        self._ours = ours
        self._since, self._passed = float("-inf"), 0

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now - self._since >= _PERIOD:
            self._since, self._passed = now, 0
        self._passed += 1
        if self._passed <= MOST_LINES:
            self._ours.handle(record)
