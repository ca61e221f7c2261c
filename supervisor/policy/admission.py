"""Which launch may start next: how many run at once, in which order, and on which port. Pure.

A start uses a core for a moment; a hundred at once would all be slow, and some would be late. So each launch waits for
its turn. A launch that is slow to become ready loses its slot after ``SLOT`` seconds and holds up nobody.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from supervisor.spec import StartupPolicy

SLOT = 10.0
"""Seconds after which a start that is still not ready no longer counts."""


@dataclass(frozen=True, slots=True)
class QueuedLaunch:
    """A launch that waits for its turn."""

    name: str
    generation: int
    port: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """Who may start now, and when to ask again if nothing happens before; None: only after something happens."""

    go: tuple[QueuedLaunch, ...] = ()
    again: float | None = None


def limit(policy: StartupPolicy, cores: int) -> int:
    """How many may start at once."""
    return policy.parallel or max(4, 2 * cores)


def turn(
    queue: Sequence[QueuedLaunch],
    sent: Collection[float],
    ports_in_use: Collection[int],
    policy: StartupPolicy,
    cores: int,
    now: float,
    last_sent: float | None = None,
) -> Turn:
    """``sent``: the launch times of those that are still starting; ``queue``: in the order of the requests."""
    running = [at for at in sent if now - at < SLOT]
    taken, go = set(ports_in_use), list[QueuedLaunch]()
    for one in sorted(queue, key=lambda one: -one.priority):
        if one.port in taken:  # its predecessor, or another datasite, still has it; the exit of that one is a fact
            continue
        if len(running) >= limit(policy, cores):
            return Turn(tuple(go), min(running) + SLOT)
        if policy.stagger and last_sent is not None and last_sent + policy.stagger > now:
            return Turn(tuple(go), last_sent + policy.stagger)
        go.append(one)
        running.append(now)
        taken.add(one.port)
        last_sent = now
    return Turn(tuple(go))
