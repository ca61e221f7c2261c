"""What one training is to be, as it is handed to ``python -m central.federated`` on standard input: one JSON object.

Standard input, because a password in an argument or in the environment can be read by others. The supervisor's command
line writes it and may not import this package: the shape is a contract.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from central.federated.participants import TrainingConfig

_DEFAULT_MU = 0.01


class PlanRejected(Exception):
    """Standard input holds no plan, or one that cannot be."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a line listens, and the login to use there."""

    name: str
    url: str
    port: int
    email: str
    password: str = field(repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """``config`` holds what the command line says; it goes before the model file's CONFIG. ``data``: "" is the line's
    only dataset. ``deadline``: seconds for a round."""

    model: str
    rounds: int
    output: str
    lines: tuple[Address, ...]
    data: str = ""
    algorithm: str = "fedavg"
    mu: float | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    quorum: str = "all"
    deadline: float = 600.0
    seed: int = 0
    resume: bool = False
    as_json: bool = False
    color: bool = True

    def training_config(self, of_model: Mapping[str, Any]) -> TrainingConfig:
        """The model file's CONFIG, with what the command line says instead; FedAvg has no proximal term."""
        chosen = {**of_model, **self.config}
        mu = chosen.pop("proximal_mu", None) or _DEFAULT_MU
        mu = (mu if self.mu is None else self.mu) if self.algorithm == "fedprox" else 0.0
        known = {one.name for one in fields(TrainingConfig)} - {"more", "seed", "proximal_mu"}
        chosen.pop("seed", None)
        more = {key: value for key, value in chosen.items() if key not in known}
        ours = {key: value for key, value in chosen.items() if key in known}
        return replace(TrainingConfig(**ours, more=more), proximal_mu=float(mu), seed=self.seed)

    def settings(self, config: TrainingConfig, digest: str) -> dict[str, Any]:
        """What decides the outcome, for checkpoint and metrics. No address, no login."""
        trained = {key: value for key, value in asdict(config).items() if key != "more"}
        return {
            "algorithm": self.algorithm,
            **trained,
            **config.more,
            "lines": [line.name for line in self.lines],
            "data": self.data,
            "quorum": self.quorum,
            "model": Path(self.model).name,
            "model_sha256": digest,
        }


def parse(raw: bytes) -> TrainingPlan:
    """Raises PlanRejected."""
    try:
        values = json.loads(raw)
        lines = tuple(Address(**line) for line in values.pop("lines"))
        plan = TrainingPlan(lines=lines, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PlanRejected(f"no plan on standard input: {error}; `fleet train` writes one") from error
    if not lines or plan.rounds < 1:
        raise PlanRejected("a training needs at least one line and one round")
    if plan.algorithm not in ("fedavg", "fedprox"):
        raise PlanRejected(f"the algorithm is fedavg or fedprox, not {plan.algorithm!r}")
    return plan
