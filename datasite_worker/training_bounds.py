"""The owner's bounds for trainings on a dataset: which may begin, and what of their results may leave.

Decisions and arithmetic, and the file that hands the bounds to the jobs. Knows no PySyft.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fleet_common import state_files
from fleet_common.contract import AnyBounds, TrainingBounds
from fleet_common.layout import WorkerFolder
from fleet_common.untrusted import Unfit

if TYPE_CHECKING:
    import torch

_FORMS = ({"parameters", "config", "data"}, {"parameters", "config", "x", "y"})
_SANE = {"momentum": (0, 0.999), "weight_decay": (0, 1), "proximal_mu": (0, 100)}
"""Beyond these, other keys do what a large learning rate does."""
_STATISTICS = ("running_mean", "running_var")
"""Buffers of normalisation layers. They follow the scale of the data: a clip for weights would spoil them."""
_DIGITS = 2
_MOST_METRICS, _LONGEST_METRIC = 16, 64


class Unbounded(Exception):
    """The parameters or the result of a training are none. The message holds no data."""


def keep(state: Path, bounds: AnyBounds) -> None:
    """Hand the bounds to the jobs. Raises OSError."""
    values = {dataset: asdict(one) for dataset, one in bounds.items()}
    state_files.write(WorkerFolder(state).training_bounds, values, lasting=False)


def kept(state: Path) -> AnyBounds:
    """What ``keep`` has handed over; nothing, which means the defaults, where the file is missing. Raises ValueError:
    then no job may run."""
    found = state_files.read(WorkerFolder(state).training_bounds, dict[str, TrainingBounds])
    if not isinstance(found, Unfit):
        return found or {}
    raise ValueError(f"the bounds for trainings of {state} are damaged ({found.why}); restart the datasite")


def of(bounds: AnyBounds, datasets: set[str]) -> dict[str, TrainingBounds]:
    """The bounds that hold for a training on these datasets."""
    found = {name: bounds.get(name) or bounds.get("") or TrainingBounds() for name in sorted(datasets)}
    return {name: one for name, one in found.items() if one.enforce}


def is_training(arguments: Mapping[str, Any]) -> bool:
    """Whether it is the form of the training function of ``central.client``."""
    return set(arguments) - {"datasite", "context"} in _FORMS


# --- before ---


def rows_of(arguments: Mapping[str, Any]) -> int:
    """How many rows the function is given."""
    data = arguments.get("data")
    if isinstance(data, Mapping):
        return rows_of(data)
    return len(data) if data is not None else min(len(arguments["x"]), len(arguments["y"]))


def copied(parameters: object) -> dict[str, torch.Tensor]:
    """The parameters that a training begins with: it may change its own. Raises Unbounded when they are none."""
    if not isinstance(parameters, Mapping) or not all(hasattr(one, "clone") for one in parameters.values()):
        raise Unbounded("its parameters are not tensors by name")
    return {name: one.clone() for name, one in parameters.items()}


def refusal(bounds: TrainingBounds, config: object, rows: int) -> str:
    """Why a training may not begin; empty if it may."""
    if rows < bounds.min_samples:
        return f"it has fewer rows than the {bounds.min_samples} that a training needs (min_samples)"
    if not isinstance(config, Mapping):
        return "its configuration is not a mapping"
    ranges = {key: getattr(bounds, key) for key in ("batch_size", "learning_rate", "epochs")}
    ranges |= {key: allowed for key, allowed in _SANE.items() if key in config}
    for key, allowed in ranges.items():
        if why := _outside(key, config.get(key), allowed):
            return why
    steps = steps_of(rows, int(config["batch_size"]), int(config["epochs"]))
    return _outside("steps", steps, bounds.steps) or _other_columns(bounds, config)


def _outside(key: str, value: object, allowed: tuple[float, float]) -> str:
    low, high = allowed
    if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high:
        return ""
    shown = f"{value:g}" if isinstance(value, int | float) else "nothing" if value is None else "no number"
    if key == "steps" and value == 1:
        return "a single step over all rows shows sums over rows; use a smaller batch_size or more epochs"
    return f"{key} must be {low:g} to {high:g}, not {shown}"


def steps_of(rows: int, batch_size: int, epochs: int) -> int:
    """The steps of a training. A last batch of one row is passed over: it cannot be normalised."""
    full, rest = divmod(rows, batch_size)
    return epochs * (full + (rest > 1 or (rest == 1 and full == 0)))


def _other_columns(bounds: TrainingBounds, config: Mapping[str, Any]) -> str:
    """The owner's own columns are filled in where the scientist names none."""
    target, features = config.get("target") or "", config.get("features") or ()
    if bounds.target and target not in ("", bounds.target):
        return f"target must be {bounds.target}"
    if bounds.features and features and sorted(features) != sorted(bounds.features):
        return f"features must be {', '.join(bounds.features)}"
    return ""


def filled(bounds: TrainingBounds, config: Any) -> Any:
    """``config`` with the owner's columns where it names none."""
    if not isinstance(config, Mapping):
        return config
    columns = {"target": bounds.target, "features": list(bounds.features)}
    return dict(config) | {key: value for key, value in columns.items() if value and not config.get(key)}


# --- after ---


def bounded(
    result: Any, received: Mapping[str, torch.Tensor], bounds: TrainingBounds, rows: int, noise: np.random.Generator
) -> dict[str, Any]:
    """What may leave of a training's ``result``. Raises Unbounded when it is no training's."""
    if not isinstance(result, dict) or set(result) != {"parameters", "metrics", "samples"}:
        raise Unbounded("it returned something other than parameters, metrics and samples")
    samples = result["samples"]
    if not isinstance(samples, int) or isinstance(samples, bool) or not 0 <= samples <= rows:
        raise Unbounded("samples is not a number of rows")
    return {
        "parameters": _parameters(result["parameters"], received, bounds, noise),
        "metrics": _metrics(result["metrics"], exact=bounds.exact_metrics),
        "samples": samples,
    }


def _metrics(metrics: Any, *, exact: bool) -> dict[str, float]:
    if not isinstance(metrics, dict) or len(metrics) > _MOST_METRICS:
        raise Unbounded(f"metrics are not at most {_MOST_METRICS} numbers")
    for name, value in metrics.items():
        if not isinstance(name, str) or len(name) > _LONGEST_METRIC or not isinstance(value, int | float):
            raise Unbounded("a metric is not a name with a number")
    return {name: float(value) if exact else float(f"{value:.{_DIGITS}g}") for name, value in metrics.items()}


def _parameters(
    parameters: Any, received: Mapping[str, torch.Tensor], bounds: TrainingBounds, noise: np.random.Generator
) -> dict[str, torch.Tensor]:
    import torch

    if not isinstance(parameters, dict) or set(parameters) != set(received):
        raise Unbounded("its parameters are not those of the model that was sent")
    for name, before in received.items():
        after = parameters[name]
        if not isinstance(after, torch.Tensor) or (after.shape, after.dtype) != (before.shape, before.dtype):
            raise Unbounded("a parameter has another form than in the model that was sent")
    moving = [name for name, before in received.items() if before.is_floating_point()]
    wide = {name: torch.promote_types(received[name].dtype, torch.float32) for name in moving}
    changes = {name: parameters[name].to(wide[name]) - received[name].to(wide[name]) for name in moving}
    scale = _scale(changes, bounds.clip)
    found = {name: parameters[name] for name in received}
    for name, change in changes.items():
        kept = change if _is_statistic(name) and math.isfinite(scale) else change * scale
        found[name] = (received[name].to(wide[name]) + kept + _noise(name, kept, bounds.noise, noise)).to(
            received[name].dtype
        )
    return found


def _is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in _STATISTICS


def _scale(changes: Mapping[str, torch.Tensor], clip: float) -> float:
    """The factor that brings the change of all parameters within the clip. NaN when one is not finite: then all become
    NaN, and the centre sees no more than that the training diverged."""
    import torch

    norms = (
        torch.linalg.vector_norm(one, dtype=torch.float64) for name, one in changes.items() if not _is_statistic(name)
    )
    norm = math.hypot(*map(float, norms))
    if not math.isfinite(norm):
        return math.nan
    return min(1.0, clip / norm) if clip and norm else 1.0


def _noise(name: str, change: torch.Tensor, share: float, noise: np.random.Generator) -> torch.Tensor | float:
    """Each tensor by the largest change in it, so that one row's change is not exact where all others are nought. A
    statistic by each value: its features may differ in scale by powers of ten."""
    import torch

    if not share or not change.numel():
        return 0.0
    size = change.abs() if _is_statistic(name) else change.abs().max()
    return torch.from_numpy(np.asarray(noise.standard_normal(tuple(change.shape), dtype=np.float32))) * (share * size)


def noise_of(key: bytes, *inputs: object) -> np.random.Generator:
    """The noise for a training with these inputs. The same inputs give the same noise, so nobody can average it away by
    repetition, and a training that is made again has the same result. Without ``key`` nobody can know it."""
    digest = hmac.new(key, digestmod=hashlib.sha256)
    for one in inputs:
        _feed(digest, one)
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest.digest()[:16], "big")))


def _feed(digest: hmac.HMAC, value: Any) -> None:
    digest.update(f"{type(value).__name__}:".encode())
    if isinstance(value, Mapping):
        for key in sorted(value):
            digest.update(f"{key}=".encode())
            _feed(digest, value[key])
    elif isinstance(value, pd.DataFrame | pd.Series):
        digest.update(pd.util.hash_pandas_object(value, index=False).to_numpy().tobytes())
    elif hasattr(value, "detach"):
        _feed(digest, value.detach().cpu().numpy())
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        digest.update(f"{value.shape}{value.dtype}".encode() + np.ascontiguousarray(value).tobytes())
    else:
        digest.update(repr(value).encode())
