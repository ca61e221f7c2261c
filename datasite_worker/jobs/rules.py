"""What the queue of jobs decides, and the words it tells it in. Pure."""

from __future__ import annotations

import contextlib
import os
import signal


def threads_of(line: int, running: int, *, fixed: bool) -> int:
    """Threads of one more job where ``running`` already run: its part of the line's, at least 1; all of them where the
    operator fixed the number."""
    return line if fixed else max(1, line // (running + 1))


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
