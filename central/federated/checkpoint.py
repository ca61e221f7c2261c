"""The checkpoint of a training, from which it continues after an interruption. The file is complete or does not exist.

It contains only tensors, numbers and text, so that loading it executes nothing (``weights_only=True``).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from central.federated.participants import Parameters
from fleet_common import folders

NAME = "checkpoint.pt"
_FORMAT = 1


class BadCheckpoint(Exception):
    """A checkpoint or an output folder cannot be used. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The global parameters after round ``number``, the settings, and the measurements of all rounds so far."""

    number: int
    parameters: Parameters
    settings: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()


def save(path: Path, kept: Checkpoint) -> None:
    """Replace ``path`` atomically: after a kill, the file is the previous checkpoint or this one."""
    write(
        path,
        {
            "format": _FORMAT,
            "round": kept.number,
            "parameters": dict(kept.parameters),
            "settings": json.dumps(dict(kept.settings)),
            "history": json.dumps([dict(one) for one in kept.history]),
        },
    )


def load(path: Path) -> Checkpoint:
    """The checkpoint in ``path``. Raises BadCheckpoint when it does not exist or is not one of ours."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        if kept["format"] != _FORMAT:
            raise BadCheckpoint(
                f"{path} was written by another version of fleet (format {kept['format']}); use that version"
            )
        history = tuple(json.loads(kept["history"]))
        return Checkpoint(int(kept["round"]), dict(kept["parameters"]), json.loads(kept["settings"]), history)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"there is no checkpoint {path}; start without --resume, or check --output") from error
    except (OSError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path} is not a valid checkpoint of fleet: {error}") from error


def write(path: Path, content: Mapping[str, Any]) -> None:
    """``torch.save``, atomically and durably. Raises OSError."""
    with folders.durable(path, mode=0o666) as file:
        torch.save(dict(content), file)
