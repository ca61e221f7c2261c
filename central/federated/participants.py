"""The words of a federation: what a line is asked, what it answers, and the ways in which it may not. No network here.

A participant is anything that trains: a datasite over the wire, or a model and its data in this process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

Parameters = Mapping[str, torch.Tensor]
"""A model's state: trainable parameters and buffers, by their names in ``state_dict``."""


class Update(Protocol):
    """What one line answers: its parameters after training, and the number of samples they were trained on."""

    @property
    def parameters(self) -> Parameters: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def samples(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How each line trains in one round. ``proximal_mu`` above 0 is FedProx; 0 is FedAvg."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.01
    proximal_mu: float = 0.0
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)  # further keys of the model file's CONFIG, handed on

    def told(self, round_number: int, line: str) -> dict[str, Any]:
        """The training_config of one line in one round, with a seed of its own that no chance has a part in."""
        return {
            **self.more,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "proximal_mu": self.proximal_mu,
            "seed": seed_of(self.seed, round_number, line),
        }


def seed_of(seed: int, round_number: int, line: str) -> int:
    """Depends on nothing but its arguments: not on the order of lines, the process, or how often it was asked."""
    digest = hashlib.sha256(f"{seed}:{round_number}:{line}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class Participant(Protocol):
    """One line. ``train`` blocks until there is an answer, and raises when there is none.

    ``Refused`` says that asking again in this round would change nothing; every other exception is a failure that may
    pass.
    """

    @property
    def name(self) -> str: ...

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> Update: ...


class Refused(Exception):
    """The line answered, and does not do what was asked: no such data, no permission, an error in the model."""
