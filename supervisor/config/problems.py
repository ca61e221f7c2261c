"""Positions in a file, and what is wrong there. A problem never holds an operator's secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A position, counted from 1 as in editors. Line 0 means the whole file."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Flaw:
    """A problem without its file. ``key`` is written like ``datasites[1].port``, and empty for the whole file."""

    mark: Mark
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One error to correct, or one warning."""

    path: Path
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else str(self.path)
        return _printable(": ".join(part for part in (place, self.key, self.message) if part))


class ConfigError(Exception):
    """The file cannot be used. ``problems`` has every reason, in file order; ``str()`` puts one on each line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def problems_of(path: Path, flaws: Iterable[Flaw]) -> tuple[Problem, ...]:
    """Sorted by position, without repeats: an error in a default or an anchor is shown once, not at each use."""
    unique: dict[tuple[Mark, str], Flaw] = {}
    for flaw in flaws:
        unique.setdefault((flaw.mark, flaw.message), flaw)
    ordered = sorted(unique.values(), key=lambda flaw: flaw.mark)
    return tuple(Problem(path, flaw.mark.line, flaw.mark.column, flaw.key, flaw.message) for flaw in ordered)


def _printable(text: str) -> str:
    """Without control characters: keys come from the file, and a terminal would obey them."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
