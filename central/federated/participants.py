"""The types of a federation: what a participant receives, returns and raises. Uses no network.

A participant is anything that trains: a datasite over the network, or a model and its data in this process.
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
    """The answer of one participant: its parameters after training, metrics, and the number of training samples."""

    @property
    def parameters(self) -> Parameters: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def samples(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """How each participant trains in one round. ``proximal_mu`` above 0 is FedProx; 0 is FedAvg."""

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.01
    proximal_mu: float = 0.0
    seed: int = 0
    more: Mapping[str, Any] = field(default_factory=dict)  # other keys of the model file's CONFIG, passed on

    def told(self, round_number: int, line: str) -> dict[str, Any]:
        """The training_config of one participant in one round, with its own reproducible seed."""
        return {
            **self.more,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "proximal_mu": self.proximal_mu,
            "seed": seed_of(self.seed, round_number, line),
        }


def seed_of(seed: int, round_number: int, line: str) -> int:
    """The seed of one participant in one round. Depends only on the arguments, so it is the same in every run."""
    digest = hashlib.sha256(f"{seed}:{round_number}:{line}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class Participant(Protocol):
    """``train`` blocks until there is an answer, and raises if there is none.

    ``Refused`` means that a retry in this round would change nothing, ``Away`` that nothing answers. Every other
    exception may pass. ``answers`` tells within seconds whether it is there. ``cancel`` takes back what ``train`` asked
    for, which then raises; ``doing`` says in words what became of it so far.
    """

    @property
    def name(self) -> str: ...

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> Update: ...

    def answers(self) -> bool: ...

    def cancel(self) -> None: ...

    def doing(self) -> str: ...


class Refused(Exception):
    """The participant answered, but does not train: no such data, no permission, an error in the model."""


class Away(Exception):
    """The participant does not answer."""
