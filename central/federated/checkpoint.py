"""What a training needs to go on after an interruption, in one file that is whole or not there.

Nothing but tensors, numbers and text is kept, so that loading one executes nothing (``weights_only=True``).
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
    """A file of parameters or a checkpoint cannot be used; the message says which, and why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The global parameters after round ``number``, how they were trained, and what was measured until then."""

    number: int
    parameters: Parameters
    settings: Mapping[str, Any]
    history: tuple[Mapping[str, Any], ...] = ()


def save(path: Path, kept: Checkpoint) -> None:
    """Replace ``path`` at once: whoever is killed meanwhile finds the checkpoint before this one."""
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
    """The checkpoint in ``path``. Raises BadCheckpoint when there is none, or it is none of ours."""
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        if kept["format"] != _FORMAT:
            raise BadCheckpoint(f"{path} is a checkpoint of another version of fleet (format {kept['format']})")
        history = tuple(json.loads(kept["history"]))
        return Checkpoint(int(kept["round"]), dict(kept["parameters"]), json.loads(kept["settings"]), history)
    except FileNotFoundError as error:
        raise BadCheckpoint(f"there is no {path} to go on from") from error
    except (OSError, pickle.UnpicklingError, EOFError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise BadCheckpoint(f"{path} is not a whole checkpoint of fleet: {error}") from error


def write(path: Path, content: Mapping[str, Any]) -> None:
    """``torch.save``, atomically and durably. Raises OSError."""
    with folders.durable(path, mode=0o666) as file:
        torch.save(dict(content), file)
