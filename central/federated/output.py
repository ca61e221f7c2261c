"""The output folder of a training: checkpoint.pt, metrics.csv, metrics.json; at the end plot.png and parameters.pt."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from central.federated import checkpoint, history, plot
from central.federated.checkpoint import BadCheckpoint, Checkpoint
from central.federated.participants import Parameters
from fleet_common import folders

PARAMETERS, METRICS_CSV, METRICS_JSON, PLOT = "parameters.pt", "metrics.csv", "metrics.json", "plot.png"


class Output:
    """The folder of one training. Files are replaced atomically. A new training never uses another's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, *, resume: bool) -> Checkpoint | None:
        """The checkpoint to continue from, or None for a new training. Raises BadCheckpoint."""
        path = self.folder / checkpoint.NAME
        if resume:
            return checkpoint.load(path)
        if path.exists():
            raise BadCheckpoint(
                f"{self.folder} has a training; continue it with --resume, or name another folder (--output)"
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadCheckpoint(f"cannot create the folder {self.folder}: {error.strerror}") from error
        return None

    def after_round(self, kept: Checkpoint) -> None:
        """Raises OSError."""
        checkpoint.save(self.folder / checkpoint.NAME, kept)
        self._metrics(kept.settings, kept.history)

    def at_end(self, kept: Checkpoint) -> None:
        """Raises OSError."""
        checkpoint.write(self.folder / PARAMETERS, kept.parameters)
        self._metrics(kept.settings, kept.history)
        title = f"{kept.settings['model']}, {kept.settings['algorithm']}, {len(kept.settings['lines'])} datasites"
        part = self.folder / f"part-{PLOT}"
        plot.draw(kept.history, part, title)
        part.replace(self.folder / PLOT)

    def _metrics(self, settings: Mapping[str, Any], rounds: Sequence[Mapping[str, Any]]) -> None:
        rows = io.StringIO()
        csv.writer(rows, lineterminator="\n").writerows(history.table(rounds))
        self._write(METRICS_CSV, rows.getvalue())
        told = history.writable({"settings": settings, "rounds": rounds})
        self._write(METRICS_JSON, json.dumps(told, indent=2, allow_nan=False) + "\n")

    def _write(self, name: str, text: str) -> None:
        folders.write_text(self.folder / name, text, mode=0o666)


def fits(parameters: Parameters, model: Parameters) -> str:
    """Why a checkpoint's parameters do not fit a model; "" if they do."""
    if parameters.keys() != model.keys():
        return "its parameters differ from those of Model"
    wrong = [name for name, tensor in model.items() if tensor.shape != parameters[name].shape]
    if wrong:
        return f"the shape of {wrong[0]} differs from that in Model"
    other = [name for name, tensor in model.items() if tensor.dtype != parameters[name].dtype]
    return f"the type of {other[0]} differs from that in Model" if other else ""
