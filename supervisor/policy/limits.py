"""When a worker is near its limits, has reached them, or takes too much to go on; and which cores it may have. Pure.

Where a control group holds a worker to its limits, the kernel does what is to be done, and this only tells. Elsewhere
memory is watched: a warning first, then a graceful restart; and CPU is bounded by the number of cores it may run on.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from supervisor.facts import Load
from supervisor.record import Pressure

NEAR = 0.9
"""The share of a limit from which on it is called near."""
CLEAR = 0.85
"""A warning holds until below this share, so that what wavers is told once."""
LOOKS = 3
"""Looks in a row over the memory limit after which a line is restarted; as many at its CPU limit and it is told."""
PERIOD = 10.0
"""Seconds from one look to the next."""
MEMORY, CPU = "memory", "cpu"
_GB = 1e9
_HOUR = 3600.0
_FIRST_REST = 30.0
_LONGEST_REST = 600.0


def is_worth_telling(load: Load) -> bool:
    """Whether anything of ``load`` is near a limit."""
    return bool(load.oom_kills) or _share(load) >= CLEAR or load.cpu_looks >= LOOKS


def pressure(before: Pressure, load: Load) -> Pressure:
    """What is near and what is reached by now."""
    near, reached = {}, {}
    if load.memory_limit and load.memory >= load.memory_limit:
        reached[MEMORY] = _memory(load)
    elif _share(load) >= (CLEAR if MEMORY in before.near or MEMORY in before.reached else NEAR):
        near[MEMORY] = _memory(load)
    if load.cpu_limit and load.cpu_looks >= LOOKS:
        reached[CPU] = f"{_whose(load)} {load.cpu:.0f} of {load.cpu_limit:g} % CPU"
    return Pressure(near, reached)


def why_end(load: Load) -> str:
    """Why a worker that nothing else holds back has to be restarted; empty: it has not."""
    over = load.memory_limit and load.memory >= load.memory_limit and load.memory_looks >= LOOKS
    return f"memory limit: {_memory(load)}" if over and not load.kernel else ""


def _share(load: Load) -> float:
    return load.memory / load.memory_limit if load.memory_limit else 0.0


def _memory(load: Load) -> str:
    return f"{_whose(load)} {load.memory / _GB:.2f} of {load.memory_limit / _GB:g} GB of memory"


def _whose(load: Load) -> str:
    return "the biggest where all lines together take" if load.of_host else "takes"


# --- a line that is always too big ---


def remember(ends: tuple[float, ...], now: float) -> tuple[float, ...]:
    """``ends`` with the one of ``now``; those of more than an hour ago are forgotten."""
    return (*(end for end in ends if now - end < _HOUR), now)


def rest(ends: int) -> float:
    """Seconds to stay down after that many ends within the hour; the first is answered at once."""
    return 0.0 if ends <= 1 else min(_LONGEST_REST, _FIRST_REST * 2.0 ** min(ends - 2, 16))


# --- CPU without control groups ---


def cores_for(name: str, percent: float, allowed: Sequence[int]) -> frozenset[int]:
    """The cores that hold a worker to at most ``percent``, rounded up to whole ones; all of ``allowed`` for 0.

    Which ones comes from its name, so that lines spread, and a restart changes nothing.
    """
    wanted = math.ceil(percent / 100.0) if percent else len(allowed)
    if wanted >= len(allowed):
        return frozenset(allowed)
    first = zlib.crc32(name.encode()) % len(allowed)
    return frozenset(allowed[(first + at) % len(allowed)] for at in range(wanted))
