"""Which columns of a table are features and which is the target: one list for all datasites. Pure.

A datasite's file may have the same columns in another order. So the list is fixed once, by name, and each datasite
takes its columns by these names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Columns:
    """The target and the features, in the order in which the model receives them."""

    target: str
    features: tuple[str, ...]

    def config(self) -> dict[str, Any]:
        """As keys of a training_config."""
        return {"target": self.target, "features": list(self.features)}


def given(config: Mapping[str, Any]) -> Columns:
    """What the configuration names; "" and () where it leaves the choice to the table."""
    features = config.get("features") or ()
    named = (features,) if isinstance(features, str) else tuple(map(str, features))
    return Columns(str(config.get("target") or ""), named)


def fixed(tables: Iterable[Sequence[str]], config: Mapping[str, Any]) -> Columns | None:
    """The list for all datasites, from the first table that has what ``config`` names. None if no table has it."""
    wanted = given(config)
    for table in tables:
        if not _missing(table, wanted):
            target = wanted.target or table[-1]
            return Columns(target, wanted.features or tuple(name for name in table if name != target))
    return None


def problem(table: Sequence[str], wanted: Columns) -> str:
    """Why the table cannot be used; "" if it can."""
    if missing := _missing(table, wanted):
        return f"has no {_named('column', missing)}; it has {listed(table)}"
    return ""


def unused(table: Sequence[str], wanted: Columns) -> str:
    """Which columns of the table are not used; "" if all are."""
    known = {wanted.target, *wanted.features}
    left = [name for name in table if name not in known]
    return f"its {_named('column', left)} {'is' if len(left) == 1 else 'are'} not used" if left else ""


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(map(repr, names[:_MOST_NAMED])) + more


def _missing(table: Sequence[str], wanted: Columns) -> list[str]:
    return [name for name in (*wanted.features, wanted.target) if name and name not in table]


def _named(word: str, names: Sequence[str]) -> str:
    return f"{word}{'s' if len(names) > 1 else ''} {listed(names)}"
