"""The plot of a training: each metric over the rounds, with a thin curve for each datasite. Only draws into a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_MOST_PANELS = 4
_MOST_NAMED = 10


def draw(history: Sequence[Mapping[str, Any]], path: Path, title: str) -> None:
    """A panel for each metric of the datasites or the centre. ``Figure`` needs no display."""
    of_lines, of_centre = _names(history, "mean"), _names(history, "global")
    panels = list(dict.fromkeys((*of_lines, *of_centre)))[:_MOST_PANELS] or ["samples"]
    figure = Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _panel(axes, history, name)
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=110)


def _names(history: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    return list(dict.fromkeys(name for one in history for name in one[where]))


def _panel(axes: Axes, history: Sequence[Mapping[str, Any]], name: str) -> None:
    lines = list(dict.fromkeys(line["line"] for one in history for line in one["lines"]))
    for line in lines if name == "samples" or any(name in one["mean"] for one in history) else ():
        label = line if len(lines) <= _MOST_NAMED else None
        axes.plot(*_of_line(history, line, name), linewidth=0.9, marker=".", markersize=4, label=label)
    for where, style, label in (("mean", "k-", "mean by samples"), ("global", "k--", "at the centre")):
        points = [(one["round"], one[where][name]) for one in history if name in one[where]]
        if points:
            axes.plot(*zip(*points, strict=True), style, linewidth=1.8, label=label)
    axes.set(xlabel="round", ylabel=name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _of_line(history: Sequence[Mapping[str, Any]], name: str, metric: str) -> tuple[list[int], list[float]]:
    """One datasite's curve, with a gap for each round without its answer."""
    shares = [(one["round"], line) for one in history for line in one["lines"] if line["line"] == name]
    values = [
        line["samples"] if metric == "samples" else line["metrics"].get(metric, float("nan")) for _, line in shares
    ]
    return [number for number, _ in shares], values
