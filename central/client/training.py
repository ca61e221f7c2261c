"""What a training is to the orchestrator: its configuration, its states, what comes back. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch


class TrainingState(StrEnum):
    """Where a training is. The last three are final."""

    WAITING = "waiting for approval"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """All that leaves a datasite: the model's parameters (and buffers), the agreed metrics, the number of rows."""

    parameters: dict[str, torch.Tensor] = field(repr=False)
    metrics: dict[str, float]
    samples: int


OPTIMIZERS = ("sgd", "adam", "adamw")

DEFAULTS: Mapping[str, Any] = {
    "epochs": 1,
    "batch_size": 32,
    "learning_rate": 0.01,
    "optimizer": "sgd",  # or adam, adamw
    "momentum": 0.0,  # of sgd
    "weight_decay": 0.0,
    "proximal_mu": 0.0,  # FedProx: adds mu/2 * ||w - w_received||^2 to the loss
    "seed": -1,  # of the shuffling and of dropout; -1: another each time
    "target": "",  # a table's target column; "": its last one
    "features": [],  # a table's feature columns; []: all but the target
}
"""Every key of a ``training_config``, with what it is when left out."""


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with the defaults for what it leaves out.

    Raises ValueError for a key that no training knows, and for a value that none can use.
    """
    unknown = sorted(set(config) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"training_config has no key {', '.join(unknown)}; it knows {', '.join(DEFAULTS)}")
    made = {**DEFAULTS, **config}
    for key in ("epochs", "batch_size"):
        if not isinstance(made[key], int) or made[key] < 1:
            raise ValueError(f"training_config: {key} must be a whole number from 1 on, not {made[key]!r}")
    if not made["learning_rate"] > 0:
        raise ValueError(f"training_config: learning_rate must be above 0, not {made['learning_rate']!r}")
    if made["optimizer"] not in OPTIMIZERS:
        raise ValueError(f"training_config: optimizer must be one of {', '.join(OPTIMIZERS)}")
    return made
