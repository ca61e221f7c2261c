"""The measurements of each round as plain values, for checkpoint, metrics and plot. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from central.federated.federation import Result, Share
from central.federated.rounds import TurnState

GLOBAL = "(global)"
"""The name in metrics.csv for the centre's own measurements of the new global parameters."""
_COLUMNS = ("round", "line", "state", "samples", "attempts", "seconds", "reason")


def entry(result: Result, measured: Mapping[str, float]) -> dict[str, Any]:
    """The history entry of one round."""
    return {
        "round": result.number,
        "seconds": round(result.seconds, 3),
        "lines": [_of_line(share) for share in result.shares],
        "mean": mean(result.shares),
        "global": dict(measured),
    }


def _of_line(share: Share) -> dict[str, Any]:
    return {
        "line": share.line,
        "state": str(share.state),
        "samples": share.samples,
        "attempts": share.attempts,
        "seconds": round(share.seconds, 3),
        "reason": share.reason,
        "metrics": dict(share.metrics),
    }


def mean(shares: Sequence[Share]) -> dict[str, float]:
    """The mean of each metric, weighted by samples, over the datasites that answered with this metric."""
    answered = [share for share in shares if share.state is TurnState.ANSWERED]
    names = dict.fromkeys(name for share in answered for name in share.metrics)
    return {
        name: _mean([(share.metrics[name], share.samples) for share in answered if name in share.metrics])
        for name in names
    }


def _mean(weighted: Sequence[tuple[float, int]]) -> float:
    return sum(value * samples for value, samples in weighted) / sum(samples for _, samples in weighted)


def table(history: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    """metrics.csv: a heading, then for each round a row per datasite, and a row for the centre's own measurements."""
    names = list(dict.fromkeys(name for one in history for _, metrics in _rows(one) for name in metrics))
    rows = ([*fixed, *(metrics.get(name, "") for name in names)] for one in history for fixed, metrics in _rows(one))
    return [[*_COLUMNS, *names], *rows]


def _rows(one: Mapping[str, Any]) -> Iterator[tuple[list[Any], Mapping[str, float]]]:
    for line in one["lines"]:
        yield [one["round"], *(line[column] for column in _COLUMNS[1:])], line["metrics"]
    if one["global"]:
        samples = sum(line["samples"] for line in one["lines"])
        yield [one["round"], GLOBAL, "", samples, "", one["seconds"], ""], one["global"]


def writable(value: Any) -> Any:
    """``value`` for JSON, which has no NaN and no infinity: null stands for both."""
    if isinstance(value, Mapping):
        return {key: writable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [writable(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
