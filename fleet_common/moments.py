"""The wall clock, as everybody outside is told it. Decides nothing: that is for the monotonic clock."""

from __future__ import annotations

from datetime import UTC, datetime


def now_iso() -> str:
    """This moment, ISO 8601 with offset, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
