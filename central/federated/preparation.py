"""Before the first round: looks at each datasite's mock, fixes the columns for all, and checks each datasite by them.

Decides nothing about rounds. Threads and network are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from central.federated import columns
from central.federated.columns import Columns
from central.federated.model_file import Mistake
from central.federated.participants import Away, Refused

Table = Sequence[str] | None
"""The columns of a datasite's table; None: its data are arrays."""


class Newcomer(Protocol):
    """A participant that can be looked at before it trains."""

    @property
    def name(self) -> str: ...

    def look(self) -> Table: ...

    def check(self, config: Mapping[str, Any]) -> None: ...


class Around(Protocol):
    """Runs work in parallel; pauses. ``together`` gives a result or an error for each piece of work."""

    def together(self, works: Sequence[Callable[[], Any]]) -> list[Any]: ...

    def now(self) -> float: ...

    def pause(self, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """``columns``: None if no datasite has a table. ``away`` and ``problems``: why a datasite cannot take part now, by
    its name. One that is away takes part once it answers."""

    columns: Columns | None = None
    away: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    def require(self, quorum: int, lines: int) -> None:
        """Raises Mistake when fewer than ``quorum`` of ``lines`` datasites can take part."""
        able = lines - len(self.problems)
        if able < quorum:
            reasons = "\n".join(f"  {name}: {why}" for name, why in self.problems.items())
            raise Mistake(f"only {able} of the required {quorum} datasites can take part:\n{reasons}")


class NobodyAnswers(Exception):
    """No datasite has shown its data in time."""

    def __init__(self, seen: Mapping[str, object]) -> None:
        super().__init__("no datasite answers: " + ", ".join(f"{name} ({why})" for name, why in seen.items()))


_PAUSE, _LONGEST_PAUSE = 1.0, 10.0


def prepare(lines: Sequence[Newcomer], config: Mapping[str, Any], around: Around, deadline: float) -> Prepared:
    """Looks at all datasites, until at least one has shown its data or refused. Raises NobodyAnswers after ``deadline``
    seconds."""
    give_up, pause = around.now() + deadline, _PAUSE
    seen = _looked(lines, around)
    while not any(isinstance(one, Refused) or not isinstance(one, Exception) for one in seen.values()):
        if around.now() + pause > give_up:
            raise NobodyAnswers(seen)
        around.pause(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
        seen = _looked(lines, around)
    agreed = columns.fixed([one for one in seen.values() if _is_table(one)], config)
    away = {name: str(one) for name, one in seen.items() if isinstance(one, Away)}
    return Prepared(agreed, away, _problems(lines, seen, {**config, **(agreed.config() if agreed else {})}))


def _looked(lines: Sequence[Newcomer], around: Around) -> dict[str, Any]:
    found = around.together([line.look for line in lines])
    return {line.name: one for line, one in zip(lines, found, strict=True)}


def _is_table(seen: Any) -> bool:
    return seen is not None and not isinstance(seen, Exception)


def _problems(lines: Sequence[Newcomer], seen: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Of those that have answered. Those that have not are checked when they do."""
    problems: dict[str, str] = {}
    for line in lines:
        told = seen[line.name]
        if not isinstance(told, Exception):
            told = _error_of(partial(line.check, config))
        if isinstance(told, Refused):
            problems[line.name] = str(told)
    return problems


def _error_of(work: Callable[[], None]) -> Exception | None:
    try:
        work()
    except Refused as error:
        return error
    return None
