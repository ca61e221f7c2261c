"""Loads a data scientist's MODEL.py once. Each error names the file and, where known, the line number.

The file defines ``Model``, a torch.nn.Module that needs no arguments. Optional: ``LOSS`` (a loss that datasites know),
``CONFIG`` (keys of a training_config, which the command line can override) and ``evaluate(model)``, which returns
numbers measured at the centre after each round.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from central.client.training import completed

Evaluate = Callable[[torch.nn.Module], Mapping[str, float]]
LOSSES = ("mse", "l1", "cross_entropy", "bce_with_logits")


class Mistake(Exception):
    """An error in the model file. The message is for its author."""


@dataclass(frozen=True)
class ModelFile:
    """The definitions of the file. ``digest`` is the hash of its content."""

    path: Path
    make: Callable[[], torch.nn.Module]
    loss: str = LOSSES[0]
    config: Mapping[str, Any] = field(default_factory=dict)
    evaluate: Evaluate | None = None
    digest: str = ""


def load(path: Path) -> ModelFile:
    """Raises Mistake."""
    digest = _digest(path)
    module = _run(path)
    found = ModelFile(
        path, _model_class(path, module), _loss(path, module), _config(path, module), _evaluate(path, module), digest
    )
    fresh(found, 0)
    return found


def fresh(model_file: ModelFile, seed: int) -> torch.nn.Module:
    """A new model, with initial parameters from ``seed``. Raises Mistake."""
    torch.manual_seed(seed)
    try:
        model = model_file.make()
    except Exception as error:
        raise Mistake(f"{model_file.path}: Model() failed: {_where(error, model_file.path)}") from error
    if not model.state_dict():
        raise Mistake(f"{model_file.path}: Model has no parameters to train")
    return model


def measured(model_file: ModelFile, model: torch.nn.Module) -> dict[str, float]:
    """The result of ``evaluate``; empty if the file does not define it. Raises Mistake."""
    if model_file.evaluate is None:
        return {}
    model.eval()
    try:
        with torch.no_grad():
            return {str(name): float(value) for name, value in model_file.evaluate(model).items()}
    except Exception as error:
        raise Mistake(f"{model_file.path}: evaluate(model) failed: {_where(error, model_file.path)}") from error


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise Mistake(f"cannot read {path}: {error.strerror}") from error


def _run(path: Path) -> ModuleType:
    name = "model_file"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Mistake(f"{path} is not a Python file; its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # inspect finds the source of a class by its module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Mistake(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise Mistake(f"cannot load {path}: {_where(error, path)}") from error
    return module


def _where(error: Exception, path: Path) -> str:
    message = f"{type(error).__name__}: {error}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{message} (line {lines[-1]})" if lines else message


def _model_class(path: Path, module: ModuleType) -> type[torch.nn.Module]:
    found = getattr(module, "Model", None)
    if found is None:
        raise Mistake(f"{path} does not define Model; give your torch.nn.Module class this name")
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise Mistake(f"{path}: Model must be a class derived from torch.nn.Module")
    needed = [
        one.name
        for one in inspect.signature(found).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if needed:
        raise Mistake(f"{path}: fleet calls Model() without arguments, so {', '.join(needed)} needs a default")
    return found


def _loss(path: Path, module: ModuleType) -> str:
    loss = getattr(module, "LOSS", LOSSES[0])
    if loss not in LOSSES:
        raise Mistake(f"{path}: LOSS must be one of {', '.join(LOSSES)}, not {loss!r}")
    return str(loss)


def _config(path: Path, module: ModuleType) -> dict[str, Any]:
    config = getattr(module, "CONFIG", {})
    try:
        completed(config)
    except (ValueError, TypeError) as error:
        raise Mistake(f"{path}: CONFIG: {str(error).removeprefix('training_config: ')}") from error
    return dict(config)


def _evaluate(path: Path, module: ModuleType) -> Evaluate | None:
    evaluate = getattr(module, "evaluate", None)
    if evaluate is not None and not callable(evaluate):
        raise Mistake(f"{path}: evaluate must be a function that takes the model")
    return evaluate
