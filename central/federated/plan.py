"""The plan of one training: a JSON object that ``python -m central.federated`` reads from standard input.

Standard input, because other users can read passwords in arguments or the environment. ``fleet train`` writes the plan
but may not import this package, so the format is a contract.
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
    """Standard input has no plan, or an invalid one."""


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a datasite, and the login to use there."""

    name: str
    url: str
    port: int
    email: str
    password: str = field(repr=False)
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """``lines``: the datasites. ``config``: options of the command line, which override the model file's CONFIG.
    ``data``: the dataset, or "" for a datasite's only one. ``deadline``: seconds for a round. ``grace``: seconds for
    the others once the quorum has answered; None: until the deadline."""

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
    grace: float | None = None
    seed: int | None = None
    resume: bool = False
    as_json: bool = False
    color: bool = True

    def training_config(self, of_model: Mapping[str, Any]) -> TrainingConfig:
        """The model file's CONFIG with the options of the command line. FedAvg has no proximal term.

        Raises ValueError.
        """
        chosen = {**of_model, **self.config}
        mu, seed = self._mu(chosen.pop("proximal_mu", None)), self._seed(chosen.pop("seed", 0))
        known = {one.name for one in fields(TrainingConfig)} - {"more", "seed", "proximal_mu"}
        more = {key: value for key, value in chosen.items() if key not in known}
        ours = {key: value for key, value in chosen.items() if key in known}
        return replace(TrainingConfig(**ours, more=more), proximal_mu=mu, seed=seed)

    def _mu(self, of_model: float | None) -> float:
        if self.algorithm != "fedprox":
            return 0.0
        return float(next((mu for mu in (self.mu, of_model) if mu is not None), _DEFAULT_MU))

    def _seed(self, of_model: int) -> int:
        seed = of_model if self.seed is None else self.seed
        if seed < 0:
            raise ValueError(f"CONFIG: seed must be 0 or more, not {seed}; leave it out, or give another with --seed")
        return int(seed)

    def unused(self, of_model: Mapping[str, Any]) -> str:
        """What of CONFIG this training does not use; "" if it uses all."""
        if self.algorithm != "fedprox" and of_model.get("proximal_mu"):
            return f"CONFIG's proximal_mu is not used by {self.algorithm}; --algorithm fedprox uses it"
        return ""

    def settings(self, config: TrainingConfig, digest: str) -> dict[str, Any]:
        """The settings that determine the result, for checkpoint and metrics. Without addresses and logins."""
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
        raise PlanRejected(f"standard input is not a plan: {error}; use `fleet train`, which writes one") from error
    if not lines or plan.rounds < 1:
        raise PlanRejected("a training needs at least one datasite and one round")
    if plan.algorithm not in ("fedavg", "fedprox"):
        raise PlanRejected(f"expected fedavg or fedprox as the algorithm, not {plan.algorithm!r}")
    return plan
