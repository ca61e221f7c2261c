"""The wall clock, for display only. Decisions use the monotonic clock."""

from __future__ import annotations

from datetime import UTC, datetime


def now_iso() -> str:
    """This moment, ISO 8601 with offset, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
