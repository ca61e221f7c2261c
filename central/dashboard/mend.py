"""Makes rows of the database safe to keep and to show. An older release, or a person, may have written them.

The limits are those of ``wire``. A value beyond them becomes unknown, and its column is named. Only a row without a
usable key is left out. Pure: reads no database, writes no log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter

from central.dashboard.liveness import FactoryStatus
from central.dashboard.wire import (
    MOST_MILLISECONDS,
    MOST_PERCENT,
    Capabilities,
    CurrentLoad,
    Experiments,
    Host,
    Place,
    Port,
    ShownName,
    Timestamp,
    Word,
    compact,
    experiments_kept,
)

LAST_MOMENT = 253_402_300_799
"""The end of the year 9999 in POSIX seconds. Python has no later date."""
MOST_BEATS = 1_000_000_000
_UNUSABLE = (ValueError, TypeError, OverflowError, RecursionError)
"""The exceptions of a parser or a check for an invalid value."""

Moment = Annotated[float, Field(ge=0, le=LAST_MOMENT, allow_inf_nan=False)]


class Mended(NamedTuple):
    """``columns`` is None if the row has no usable key. ``faults`` names the unusable columns."""

    name: Any
    columns: dict[str, Any] | None
    faults: list[str]


_NAME = TypeAdapter[str](ShownName)
_STATUS = TypeAdapter(FactoryStatus)
_CAPABILITIES = TypeAdapter[dict[str, Any]](Capabilities)
_EXPERIMENTS = TypeAdapter[int | list[str] | None](Experiments | None)
_TIMES: TypeAdapter[Any] = TypeAdapter(Moment)
_FIGURES: TypeAdapter[Any] = TypeAdapter(CurrentLoad)
_PLAIN: dict[str, tuple[TypeAdapter[Any], Any]] = {
    "hostname": (TypeAdapter(Host), ""),
    "port": (TypeAdapter(Port), 0),
    "device": (TypeAdapter(Word), ""),
    "reported_status": (TypeAdapter(Word), ""),
    "registered_at": (_TIMES, 0.0),
    "last_seen": (_TIMES, 0.0),
    "last_heartbeat": (TypeAdapter(Moment | None), None),
    "timestamp": (TypeAdapter(Timestamp | None), None),
    "last_training_completion": (TypeAdapter(Word | None), None),
    "region": (TypeAdapter(Place), ""),
    "location": (TypeAdapter(Place), ""),
    "status": (_STATUS, FactoryStatus.OFFLINE),
    "status_since": (_TIMES, 0.0),
}
"""Column, check, and the value for unknown."""


def factory(row: Mapping[str, Any]) -> Mended:
    """The columns of a factory. JSON is parsed and written again."""
    faults: list[str] = []
    name = _checked(_NAME, row["name"], None)
    if name is None:
        return Mended(row["name"], None, ["name"])
    columns: dict[str, Any] = {"name": name}
    for column, (check, unknown) in _PLAIN.items():
        columns[column] = _noting(faults, column, check, row[column], unknown)
    columns["capabilities"] = _capabilities(row["capabilities"], faults)
    columns["active_experiments"] = _experiments(row["active_experiments"], faults)
    columns["current_load"] = _figures(row["current_load"], faults)
    return Mended(name, columns, faults)


def load(row: Sequence[Any]) -> Mended:
    """The columns of a load. Checked by hand, for speed: every start reads sixty for each factory."""
    name, at, beats, *figures = row
    if not (isinstance(name, str) and isinstance(at, int) and 0 <= at <= LAST_MOMENT):
        return Mended(name, None, ["load.at"])
    columns: dict[str, Any] = {"name": name, "at": at, "beats": beats}
    faults = []
    if not (isinstance(beats, int) and 0 <= beats <= MOST_BEATS):
        columns["beats"] = 0
        faults.append("load.beats")
    for column, most, value in zip(_LOADS, _MOST, figures, strict=True):
        columns[column] = value
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= most):
            columns[column] = None
            faults.append(f"load.{column}")
    return Mended(name, columns, faults)


_LOADS = ("cpu", "memory", "disk", "latency")
_MOST = (MOST_PERCENT, MOST_PERCENT, MOST_PERCENT, MOST_MILLISECONDS)


def change(row: Sequence[Any]) -> Mended:
    """The columns of a status change. One without a valid time or status is left out."""
    name, at, status = row
    if not (isinstance(name, str) and isinstance(at, int | float) and 0 <= at <= LAST_MOMENT):
        return Mended(name, None, ["change.at"])
    if _checked(_STATUS, status, None) is None:
        return Mended(name, None, ["change.status"])
    return Mended(name, {"name": name, "at": at, "status": status}, [])


def _capabilities(text: Any, faults: list[str]) -> bytes:
    checked = _noting(faults, "capabilities", _CAPABILITIES, _parsed(text), None)
    return b"{}" if checked is None else compact(checked)


def _experiments(text: Any, faults: list[str]) -> bytes | None:
    checked = _noting(faults, "active_experiments", _EXPERIMENTS, _parsed(text), None)
    return None if checked is None else experiments_kept(checked)


def _figures(text: Any, faults: list[str]) -> bytes | None:
    """Each figure by itself, so that an invalid one does not hide the others."""
    parsed = _parsed(text)
    if parsed is None:
        return None
    if not isinstance(parsed, dict):
        faults.append("current_load")
        return None
    figures = {}
    for figure in CurrentLoad.model_fields:
        one = _checked(_FIGURES, {figure: parsed.get(figure)}, None)
        figures[figure] = None if one is None else getattr(one, figure)
        if one is None:
            faults.append(f"current_load.{figure}")
    return compact(figures)


def _parsed(text: Any) -> Any:
    """The parsed JSON; SQLite returns a bare number as a number. ``...`` if it is invalid, which no check accepts."""
    if text is None or isinstance(text, int | float):
        return text
    try:
        return json.loads(text)
    except _UNUSABLE:
        return ...


def _noting(faults: list[str], column: str, check: TypeAdapter[Any], value: Any, unknown: Any) -> Any:
    checked = _checked(check, value, ...)
    if checked is ...:
        faults.append(column)
        return unknown
    return checked


def _checked(check: TypeAdapter[Any], value: Any, otherwise: Any) -> Any:
    try:
        return check.validate_python(value)
    except _UNUSABLE:
        return otherwise
