"""Where something stands in a file, and what is wrong there. A problem never holds an operator's secret."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A position, counted from 1 as editors do; line 0 is the file as a whole."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True)
class Flaw:
    """A problem before it is known in which file. ``key`` as in ``datasites[1].port``, empty for the whole file."""

    mark: Mark
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to correct (or, among the warnings, to think about)."""

    path: Path
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else str(self.path)
        return _printable(": ".join(part for part in (place, self.key, self.message) if part))


class ConfigError(Exception):
    """The file cannot be used. ``problems``: all of them, in the order of the file; ``str()`` gives one per line."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def problems_of(path: Path, flaws: Iterable[Flaw]) -> tuple[Problem, ...]:
    """Sorted by position, each once: a default or an anchor that is used ten times is one line to correct."""
    unique: dict[tuple[Mark, str], Flaw] = {}
    for flaw in flaws:
        unique.setdefault((flaw.mark, flaw.message), flaw)
    ordered = sorted(unique.values(), key=lambda flaw: flaw.mark)
    return tuple(Problem(path, flaw.mark.line, flaw.mark.column, flaw.key, flaw.message) for flaw in ordered)


def _printable(text: str) -> str:
    """On one line, as a terminal obeys control characters and keys come from the file."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)
