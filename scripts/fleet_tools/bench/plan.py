"""What a bench is, and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from fleet_tools.bench.figures import Section


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a bench. ``room`` makes a folder of its own; ``say`` shows progress."""

    lines: int
    rounds: int
    room: Callable[[str], AbstractContextManager[Path]]
    say: Callable[[str], None]

    def each_round(self, what: str, rounds: int | None = None) -> Iterator[int]:
        total = rounds or self.rounds
        for number in range(total):
            self.say(f"{what}, round {number + 1} of {total}")
            yield number


@dataclass(frozen=True, slots=True)
class Bench:
    """``lines`` and ``rounds``: its defaults."""

    about: str
    lines: int
    rounds: int
    measure: Callable[[Plan], Section]
