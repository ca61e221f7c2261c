"""Which faults strike, in which order, where, and how hard: drawn from one seed, before anything runs. Pure.

The same seed, number, lines and kinds give the same strikes, so that a failing run can be replayed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LONGEST_PAUSE = 1.5


@dataclass(frozen=True, slots=True)
class Strike:
    """``line``: index of the victim; ``draw``: in [0, 1), each kind of fault uses it in its own way."""

    number: int
    kind: str
    line: int
    draw: float
    pause: float  # seconds of peace before it

    def fraction(self, nth: int) -> float:
        """Another number in [0, 1), for a fault that has several choices to make."""
        return (self.draw * 7919 * nth) % 1.0


def plan(seed: int, count: int, lines: int, weights: Mapping[str, int]) -> tuple[Strike, ...]:
    """``count`` strikes; every kind occurs when there are enough of them, the heavier ones oftener."""
    dice = random.Random(seed)  # noqa: S311 - a plan that can be drawn again, not a secret
    kinds = _kinds(dice, count, list(weights), list(weights.values()))
    return tuple(
        Strike(number, kind, dice.randrange(lines), dice.random(), dice.uniform(0.1, LONGEST_PAUSE))
        for number, kind in enumerate(kinds, 1)
    )


def _kinds(dice: random.Random, count: int, names: Sequence[str], weights: Sequence[int]) -> list[str]:
    once = list(names) if count >= len(names) else []
    kinds = once + dice.choices(names, weights, k=count - len(once))
    dice.shuffle(kinds)
    return kinds
