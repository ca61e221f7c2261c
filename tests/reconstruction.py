"""The attack that the bounds for trainings are for, on random data of a test's own.

The model is innocent: a layer, ReLU, a layer. Whoever chooses its parameters can give each unit a threshold of its own,
so that the changes of two neighbours differ by the one row that lies between their thresholds. ``Attack`` chooses the
parameters and counts the rows that the update shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

FEATURES, UNITS = 4, 1024
CLOSE = 0.01
Tensors = Mapping[str, torch.Tensor]


def rows(number: int = 300) -> tuple[Any, Any]:
    """Private rows, and a target that depends on them."""
    x = np.random.default_rng(7).normal(size=(number, FEATURES))
    return x, x @ np.array([[1.0], [-2.0], [0.5], [0.3]])


def model() -> torch.nn.Module:
    """What the owner reads, and would approve."""
    return torch.nn.Sequential(torch.nn.Linear(FEATURES, UNITS), torch.nn.ReLU(), torch.nn.Linear(UNITS, 1))


@dataclass(frozen=True, eq=False)
class Attack:
    """``config`` and the scales of the parameters belong together: the first is plain, the second keeps to the ranges of
    the default bounds by taking two small steps."""

    config: Mapping[str, Any]
    scale: float
    out: float
    bias: float
    units: int = UNITS  # thresholds in use; they lie at the upper end of the data if not all are

    def parameters(self) -> dict[str, torch.Tensor]:
        first = torch.zeros(UNITS, FEATURES)
        first[:, 0] = self.scale
        shares = torch.linspace(0.001, 0.999, UNITS)[-self.units :]
        thresholds = torch.full((UNITS,), 1e3)
        thresholds[: self.units] = torch.distributions.Normal(0, 1).icdf(shares)
        out = torch.full((1, UNITS), self.out)
        return {
            "0.weight": first,
            "0.bias": -thresholds * self.scale,
            "2.weight": out,
            "2.bias": torch.tensor([self.bias]),
        }

    def found(self, after: Tensors, private: Any) -> int:
        """How many private rows the update shows, each value to within ``CLOSE``."""
        before = self.parameters()
        weight, bias = ((after[key] - before[key])[: self.units] for key in ("0.weight", "0.bias"))
        weight, bias = (torch.cat([one[:-1] - one[1:], one[-1:]]) for one in (weight, bias))
        guesses = weight / bias[:, None]
        guesses = guesses[torch.isfinite(guesses).all(1)]
        if not len(guesses):
            return 0
        far = (guesses[:, None, :] - torch.as_tensor(private).float()[None]).abs().amax(2)
        return int((far.min(0).values < CLOSE).sum())


ONE_STEP = Attack({"batch_size": 300, "learning_rate": 1e5, "seed": 1}, 1.0, 1e-3, -1e3)
TWO_STEPS = Attack({"batch_size": 150, "learning_rate": 1e-4, "seed": 1}, 0.01, 1.0, -1.0)
FEW_ROWS = Attack({"batch_size": 150, "learning_rate": 1e-4, "seed": 1}, 0.01, 1.0, -1.0, units=40)
ATTACKS = (ONE_STEP, TWO_STEPS, FEW_ROWS)
