"""The two clocks: monotonic to decide, wall to display."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def monotonic() -> float:
    """Seconds on a clock that never jumps."""
    return time.monotonic()


def wall() -> str:
    """The time of day, ISO 8601 with offset, for people."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
