"""A training as the orchestrator sees it: configuration, states and result. Values only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch

from central.client.errors import TrainingFailed


class TrainingState(StrEnum):
    """The state of a training. The last three are final."""

    WAITING = "waiting for approval"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


FINAL = (TrainingState.DONE, TrainingState.FAILED, TrainingState.INTERRUPTED)


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """Everything that leaves a datasite: parameters (and buffers), the agreed metrics, the number of rows."""

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
    "seed": -1,  # of the shuffling and of dropout; -1: a new one each time
    "target": "",  # a table's target column; "": its last column
    "features": (),  # a table's feature columns; (): all but the target
}
"""Every key of a ``training_config``, with its default."""

_AT_LEAST = {"epochs": 1, "batch_size": 1, "momentum": 0, "weight_decay": 0, "proximal_mu": 0, "seed": -1}


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with defaults for missing keys, in types that any PySyft can read.

    Raises ValueError for an unknown key or an invalid value.
    """
    unknown = sorted(set(config) - set(DEFAULTS))
    if unknown:
        raise ValueError(f"training_config: unknown key {', '.join(unknown)}; known: {', '.join(DEFAULTS)}")
    complete = {key: _read(key, config.get(key, default), type(default)) for key, default in DEFAULTS.items()}
    for key, least in _AT_LEAST.items():
        if complete[key] < least:
            raise ValueError(f"training_config: {key} must be {least} or more, not {complete[key]}")
    if complete["learning_rate"] <= 0:
        raise ValueError(f"training_config: learning_rate must be above 0, not {complete['learning_rate']}")
    if complete["optimizer"] not in OPTIMIZERS:
        raise ValueError(f"training_config: optimizer must be one of {', '.join(OPTIMIZERS)}")
    return complete


def _read(key: str, value: Any, kind: type) -> Any:
    """``value`` in the type of the default."""
    if kind is tuple:
        return [str(one) for one in ([value] if isinstance(value, str) else value)]
    if kind is str:
        return str(value)
    try:
        read = kind(value)
        if isinstance(value, str) or read != value or not math.isfinite(read):
            raise ValueError  # noqa: TRY301 - one message for every value that is not such a number
    except (TypeError, ValueError, OverflowError):
        expected = "a whole number" if kind is int else "a number"
        raise ValueError(f"training_config: {key} must be {expected}, not {value!r}") from None
    return read


PROBLEMS: Mapping[int, str] = {
    1: "has nothing to train on: no rows",
    2: "has nothing to train on: labels that are no classes of the model",
    3: "has no column{column}",
    4: "has a column that is not numbers{column}",
    5: "has missing values, or values that are not finite",
    6: "gets a loss that is not finite from the parameters that were sent",
}
"""What the numbers mean that a training function gives for a problem with the data."""
OF_FORM = (3, 4)
"""Problems that columns and types alone show."""


def problem_of(metrics: Any, config: Mapping[str, Any]) -> tuple[int, str]:
    """The number and the words of the problem in ``metrics``; 0 and "" where they tell none."""
    number, place = (_whole(metrics, name) for name in ("problem", "column"))
    asked = [*config["features"], config["target"]]
    column = f" {asked[place - 1]!r}" if 0 < place <= min(len(asked), _PLACES) else ""
    return number, PROBLEMS.get(number, "").replace("{column}", column)


_PLACES = 99
"""A datasite rounds metrics to two digits."""


def _whole(metrics: Any, name: str) -> int:
    value = metrics.get(name) if isinstance(metrics, dict) else None
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else 0


def update_of(
    result: Any, model: Mapping[str, torch.Tensor], metrics: frozenset[str], where: str, config: Mapping[str, Any]
) -> LocalUpdate:
    """The result of a training, if it has exactly the agreed form.

    Raises TrainingFailed when it has another form, or when the training diverged.
    """
    if not isinstance(result, dict) or set(result) != {"parameters", "metrics", "samples"}:
        raise TrainingFailed(
            f"{where} returned something other than parameters, metrics and samples; the result is not used"
        )
    parameters, measured, samples = result["parameters"], result["metrics"], result["samples"]
    if not _alike(parameters, model):
        raise TrainingFailed(f"{where} returned the parameters of another model; the result is not used")
    if samples == 0:
        raise TrainingFailed(f"{where} {problem_of(measured, config)[1] or 'has nothing to train on'}")
    if not _agreed(measured, metrics) or not isinstance(samples, int) or samples < 1:
        raise TrainingFailed(f"{where} returned metrics that were not agreed on; the result is not used")
    if not all(math.isfinite(value) for value in measured.values()) or not _finite(parameters):
        raise TrainingFailed(f"the training at {where} diverged (its result is not finite); lower learning_rate")
    return LocalUpdate(dict(parameters), {key: float(value) for key, value in measured.items()}, samples)


def _agreed(measured: Any, metrics: frozenset[str]) -> bool:
    return (
        isinstance(measured, dict)
        and set(measured) == metrics
        and all(isinstance(value, int | float) for value in measured.values())
    )


def _finite(parameters: Mapping[str, torch.Tensor]) -> bool:
    return all(bool(torch.isfinite(one).all()) for one in parameters.values())


def _alike(parameters: Any, model: Mapping[str, torch.Tensor]) -> bool:
    return (
        isinstance(parameters, dict)
        and set(parameters) == set(model)
        and all(isinstance(one, torch.Tensor) for one in parameters.values())
        and all(parameters[key].shape == one.shape and parameters[key].dtype == one.dtype for key, one in model.items())
    )
