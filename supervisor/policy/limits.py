"""When a worker is near its limits, has reached them, or must restart; and which cores it may use. Pure.

If a control group enforces the limits of a worker, the kernel acts, and this only makes events. Elsewhere memory is
watched: a warning first, then a graceful restart; and the number of cores bounds CPU.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence

from supervisor.facts import Load
from supervisor.history import FLEET, Event, EventKind
from supervisor.record import Pressure

NEAR = 0.9
"""From this share of a limit on, a worker is near it."""
CLEAR = 0.85
"""A warning lasts until below this share, and a reached limit until it is not near: wavering makes one event.
"""
LOOKS = 3
"""Looks in a row over the memory limit after which a datasite restarts; after as many at its CPU limit there is an
event."""
PERIOD = 10.0
"""Seconds from one look to the next."""
MEMORY, CPU = "memory", "cpu"
OOM = "oom"
"""Not a limit: the kernel killed a process."""
HOST_MEMORY, HOST_CPU = "host_memory", "host_cpu"
"""The limits of all datasites together; those of one datasite may be near or reached at the same time."""
_GB = 1e9
_HOUR = 3600.0
_FIRST_REST = 30.0
_LONGEST_REST = 600.0


def is_worth_telling(before: Pressure, load: Load) -> bool:
    """Whether anything is near a limit, or was until now."""
    return bool(load.oom_kills or before.near or before.reached) or _is_near(load)


def _is_near(load: Load) -> bool:
    return _share(load) >= CLEAR or (bool(load.cpu_limit) and load.cpu_looks >= LOOKS)


def pressure(before: Pressure, load: Load) -> Pressure:
    """What is near and what is reached now."""
    memory, cpu = (HOST_MEMORY, HOST_CPU) if load.of_host else (MEMORY, CPU)
    near, reached = {}, {}
    if _share(load) >= (NEAR if memory in before.reached else 1.0):
        reached[memory] = _memory(load)
    elif _share(load) >= (CLEAR if memory in before.near or memory in before.reached else NEAR):
        near[memory] = _memory(load)
    if load.cpu_limit and load.cpu_looks >= LOOKS:
        throttled = f", and {'are' if load.of_host else 'is'} throttled" if load.cpu_kernel else ""
        words = f"{_whose(load)} {load.cpu:.0f} of {load.cpu_limit:g} % CPU{throttled}"
        reached[cpu] = before.reached.get(cpu, words) if load.cpu_calm else words
    if load.oom_kills:
        reached[OOM] = out_of_memory(load)
    return Pressure(near, reached)


def out_of_memory(load: Load) -> str:
    """What the kernel has done since the last look, in words."""
    ended = "one of its processes" if load.oom_kills == 1 else f"{load.oom_kills} of its processes"
    return f"out of memory: the kernel killed {ended}: {load.oom_limit or 'it was over its limit'}"


def cpu_looks(looks: int, calm: int, *, at_limit: bool) -> tuple[int, int]:
    """Looks in a row at the CPU limit, and looks in a row below it. The limit stays reached until there are enough of
    the latter, so that a training with pauses makes one event."""
    if at_limit:
        return looks + 1, 0
    return (looks if looks >= LOOKS and calm + 1 < LOOKS else 0), calm + 1


def changes(old: Pressure, new: Pressure) -> Iterator[tuple[EventKind, str, str]]:
    """Kind, limit and text of each event: one when a limit comes near, one when it is reached, one when it is neither.
    Kills by the kernel are events of their own, made elsewhere."""
    for name in sorted(new.near.keys() - old.near.keys() - old.reached.keys()):
        yield EventKind.LIMIT_NEAR, name, f"near a limit: {new.near[name]}"
    for name in sorted(new.reached.keys() - old.reached.keys() - {OOM}):
        yield EventKind.LIMIT_REACHED, name, f"limit reached: {new.reached[name]}"
    for name in sorted((old.near.keys() | old.reached.keys()) - new.near.keys() - new.reached.keys() - {OOM}):
        yield EventKind.LIMIT_CLEARED, name, f"no longer near {in_words(name)}"


def in_words(name: str) -> str:
    """The name of a limit in texts: those of the supervisor and those that workers enforce."""
    return _NAMES.get(name, f"its {name.replace('_', ' ')} limit")


def of_all(old: Pressure, new: Pressure) -> tuple[Event, ...]:
    """The same for the limits of all datasites together: events of the fleet, whichever datasite is the largest."""
    return tuple(
        Event(FLEET, kind, text, cause=name, warning=kind is not EventKind.LIMIT_CLEARED)
        for kind, name, text in changes(old, new)
    )


_NAMES = {CPU: "its CPU limit", HOST_MEMORY: "the host's memory limit", HOST_CPU: "the host's CPU limit"}


def why_end(load: Load) -> str:
    """Why a worker whose limits nothing enforces must restart; empty: it need not."""
    over = load.memory_limit and load.memory >= load.memory_limit and load.memory_looks >= LOOKS
    if load.kernel or not over:
        return ""
    return f"memory limit: {'this datasite is the largest; ' if load.of_host else ''}{_memory(load)}"


def _share(load: Load) -> float:
    return load.memory / load.memory_limit if load.memory_limit else 0.0


def _memory(load: Load) -> str:
    return f"{_whose(load)} {load.memory / _GB:.2f} of {load.memory_limit / _GB:g} GB of memory"


def _whose(load: Load) -> str:
    return "all datasites together use" if load.of_host else "uses"


# --- a datasite that is always too large ---


def remember(ends: tuple[float, ...], now: float) -> tuple[float, ...]:
    """``ends`` and ``now``, without those of more than an hour ago."""
    return (*(end for end in ends if now - end < _HOUR), now)


def rest(ends: int) -> float:
    """Seconds to stay down after that many ends within the hour; 0 for the first."""
    return 0.0 if ends <= 1 else min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(ends - 2, 16))


# --- CPU without control groups ---


def cores_for(name: str, percent: float, allowed: Sequence[int]) -> frozenset[int]:
    """The cores that keep a worker to at most ``percent``, rounded up to whole ones; all of ``allowed`` for 0.

    Which ones comes from its name, so that datasites spread, and a restart changes nothing.
    """
    wanted = math.ceil(percent / 100.0) if percent else len(allowed)
    if wanted >= len(allowed):
        return frozenset(allowed)
    first = zlib.crc32(name.encode()) % len(allowed)
    return frozenset(allowed[(first + at) % len(allowed)] for at in range(wanted))
