"""Decisions of the job queue, and their wording. Pure."""

from __future__ import annotations

import contextlib
import os
import signal


def threads_of(available: int, running: int, *, fixed: bool) -> int:
    """Threads of another job while ``running`` jobs run: its share of the datasite's threads, at least 1; all of them
    if the operator fixed the number."""
    return available if fixed else max(1, available // (running + 1))


def how_it_ended(status: int | None) -> str:
    """waitpid's status in words."""
    if status is None:
        return "the process that forks jobs ended"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"its process ended with exit status {code}"
    with contextlib.suppress(ValueError):
        return f"its process was killed by {signal.Signals(-code).name}"
    return f"its process was killed by signal {-code}"
