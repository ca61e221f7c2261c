"""When a crashed worker is started again: exponential back-off with jitter, and what a crash loop is. Pure.

The shape of the back-off is the usual one (base * 2^n, capped); jitter is drawn from the worker's name and
generation, never from a random source, so that a recorded history replays to the same orders.
"""

from __future__ import annotations

import hashlib

from supervisor.record import ExitCause, ExitKind
from supervisor.spec import RestartMode, RestartPolicy

REMEMBERED_CRASHES = 64
"""More than any policy counts; it bounds the record of a worker that crashes slowly for months."""


def remember_crash(
    crashes: tuple[float, ...], ready_since: float | None, policy: RestartPolicy, now: float
) -> tuple[float, ...]:
    """``crashes`` with the one of ``now``; a process that had been ready for ``stable_after`` wipes the slate first."""
    stable = ready_since is not None and now - ready_since >= policy.stable_after
    return (*(() if stable else crashes), now)[-REMEMBERED_CRASHES:]


def is_crash_loop(crashes: tuple[float, ...], policy: RestartPolicy, now: float) -> bool:
    recent = [crash for crash in crashes if now - crash <= policy.window]
    return len(recent) > policy.max_crashes


def backoff_delay(crashes: int, policy: RestartPolicy, name: str, generation: int) -> float:
    """Seconds to wait after crash number ``crashes`` in a row (1 is the first, answered at once)."""
    if crashes <= 1:
        return 0.0
    exponent = min(crashes - 2, 32)  # beyond it every cap is reached, and 2.0 ** n would overflow in the end
    delay = min(policy.backoff_max, policy.backoff * 2.0**exponent)
    return delay * (1.0 + policy.jitter * spread(name, generation))


def spread(name: str, generation: int) -> float:
    """A number in [0, 1) that is the same for the same worker and generation, and unlike its neighbours'."""
    digest = hashlib.sha256(f"{name}:{generation}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2.0**64


def wants_restart(mode: RestartMode, cause: ExitCause) -> bool:
    """Whether an end that nobody asked for is followed by a start."""
    if mode is RestartMode.ALWAYS:
        return True
    return mode is RestartMode.ON_FAILURE and cause.kind is not ExitKind.CLEAN
