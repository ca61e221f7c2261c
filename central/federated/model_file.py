"""A data scientist's MODEL.py: loaded once, and every mistake in it told in words with file and line.

It defines ``Model``, a torch.nn.Module made without arguments. Optional: ``LOSS`` (a name that the lines know),
``CONFIG`` (keys of a training_config, which the command line may override) and ``evaluate(model)``, which returns
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
    """What is wrong with the model file, for the person who wrote it."""


@dataclass(frozen=True)
class ModelFile:
    """What the file defines. ``digest`` tells one text of it from another."""

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
    """A model with the initial parameters that ``seed`` gives. Raises Mistake."""
    torch.manual_seed(seed)
    try:
        made = model_file.make()
    except Exception as error:
        raise Mistake(f"{model_file.path}: Model() failed: {_where(error, model_file.path)}") from error
    if not made.state_dict():
        raise Mistake(f"{model_file.path}: Model has no parameters to train")
    return made


def measured(model_file: ModelFile, model: torch.nn.Module) -> dict[str, float]:
    """What ``evaluate`` says; nothing where there is none. Raises Mistake."""
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
        raise Mistake(f"{path} cannot be read: {error.strerror}") from error


def _run(path: Path) -> ModuleType:
    name = "model_file"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise Mistake(f"{path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # inspect finds the source of a class by its module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise Mistake(f"{path}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        raise Mistake(f"{path} cannot be loaded: {_where(error, path)}") from error
    return module


def _where(error: Exception, path: Path) -> str:
    said = f"{type(error).__name__}: {error}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return f"{said} (line {lines[-1]})" if lines else said


def _model_class(path: Path, module: ModuleType) -> type[torch.nn.Module]:
    found = getattr(module, "Model", None)
    if found is None:
        raise Mistake(f"{path} defines no Model: name the class of your torch.nn.Module so")
    if not (inspect.isclass(found) and issubclass(found, torch.nn.Module)):
        raise Mistake(f"{path}: Model must be a class derived from torch.nn.Module")
    needed = [
        one.name
        for one in inspect.signature(found).parameters.values()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if needed:
        raise Mistake(f"{path}: Model() is made without arguments, so {', '.join(needed)} needs a default")
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
        raise Mistake(f"{path}: CONFIG: {error}") from error
    return dict(config)


def _evaluate(path: Path, module: ModuleType) -> Evaluate | None:
    evaluate = getattr(module, "evaluate", None)
    if evaluate is not None and not callable(evaluate):
        raise Mistake(f"{path}: evaluate must be a function that takes the model")
    return evaluate
