"""Tries a training function in this process, on values that have the form of a mock: columns, types and shapes.

So a mistake is named before a datasite is asked. The values are zeros, because a mock's own may be drawn at random and
tell nothing. Sees no data, and asks nobody.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from central.client.errors import DoesNotFit
from central.client.function import TrainingFunction
from central.client.training import OF_FORM, problem_of

_ROWS = 4
_one_at_a_time = threading.Lock()  # torch has one random generator for all threads


def tried(
    function: TrainingFunction,
    parameters: Mapping[str, torch.Tensor],
    config: Mapping[str, Any],
    mock: Mapping[str, Any],
) -> None:
    """Raises DoesNotFit, with what is wrong in one sentence."""
    given = {name: _zeros(one) for name, one in mock.items()}
    few = {**config, "epochs": 1, "batch_size": min(config["batch_size"], _ROWS)}
    room: dict[str, Any] = {}
    exec(function.source, room)  # noqa: S102 - the source of the caller's own class
    try:
        with _one_at_a_time, _untouched():
            result = room[function.name]({key: one.clone() for key, one in parameters.items()}, few, **given)
    except Exception as error:
        raise DoesNotFit(f"the model cannot be trained on {_described(given, config)}: {_sentence(error)}") from error
    number, problem = problem_of(result["metrics"], config)
    if number in OF_FORM:
        raise DoesNotFit(f"the data {problem}")


@contextmanager
def _untouched() -> Iterator[None]:
    """Torch's random generator and its choice of algorithms are the caller's, and stay as they are."""
    chosen = torch.get_deterministic_debug_mode()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_deterministic_debug_mode(chosen)


def _zeros(mock: Any) -> Any:
    """A few rows of zeros in the form of ``mock``; text stays text."""
    if not hasattr(mock, "columns"):
        made = np.asarray(mock)
        return np.zeros((_ROWS, *made.shape[1:]), dtype=made.dtype if made.dtype.kind in "biufc" else float)
    import pandas as pd

    numbers = {name: dtype.kind in "biuf" for name, dtype in mock.dtypes.items()}
    rows = {name: pd.array(np.zeros(_ROWS), dtype=mock[name].dtype) for name, one in numbers.items() if one}
    return pd.DataFrame({name: rows.get(name, pd.array([""] * _ROWS, dtype=object)) for name in mock.columns})


def _described(given: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What the model receives: ``3 features ('speed', 'load', 'heat') and the target 'wear'``."""
    data: Any = given.get("data")
    if hasattr(data, "columns"):
        target = config["target"] or data.columns[-1]
        known = list(config["features"]) or [name for name in data.columns if name != target]
        names = ", ".join(map(repr, known[:8])) + (", …" if len(known) > 8 else "")
        return f"{len(known)} feature{'s' if len(known) > 1 else ''} ({names}) and the target {target!r}"
    shapes = [f"{name} of shape (rows, {', '.join(map(str, one.shape[1:]))})" for name, one in given.items()]
    return " and ".join(shapes)


def _sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{lines[0]} ({type(error).__name__})" if lines[0] else type(error).__name__
