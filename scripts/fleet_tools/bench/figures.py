"""What was measured, as values; what it amounts to, as Markdown and JSON. Pure: no clock, process or file."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Target:
    """What a median is held to; ``at_least`` turns the comparison round."""

    value: float
    at_least: bool = False

    def holds(self, measured: float) -> bool:
        return measured >= self.value if self.at_least else measured <= self.value

    def text(self, unit: str) -> str:
        return f"{'≥' if self.at_least else '≤'} {number(self.value)} {unit}".rstrip()


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing measured in ``values``, one a round. ``rival``: it is not fleet that was measured."""

    what: str
    unit: str
    values: tuple[float, ...]
    target: Target | None = None
    rival: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def holds(self) -> bool | None:
        """Whether the median is within its target; None when there is none."""
        return None if self.target is None else self.target.holds(self.median)


@dataclass(frozen=True, slots=True)
class Section:
    """One bench's result. ``notes``: how it was measured, and what could not be."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        return all(figure.holds is not False for figure in self.figures)


@dataclass(frozen=True, slots=True)
class Setting:
    """Where and how the figures came about."""

    command: str
    date: str
    cpu: str
    cores: int
    memory_gb: float
    load: float  # of the last minute, before the first bench
    kernel: str
    python: str
    fleet: str
    syft: str
    torch: str


def ratio(what: str, rival: Figure, ours: Figure, target: Target | None = None) -> Figure:
    """How many times the rival's median ours goes into."""
    return Figure(what, "x", (rival.median / ours.median if ours.median else float("inf"),), target)


def number(value: float) -> str:
    """Three significant digits, and no exponent: 0.217, 12.4, 1530."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}".removesuffix(".0")
    shown = f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"
    return shown.rstrip("0").rstrip(".")


_HEAD = ("what", "min", "median", "max", "rounds", "target", "met")


def row(figure: Figure) -> tuple[str, ...]:
    """The cells of one figure, in the order of the table's head."""
    unit = f" {figure.unit}" if figure.unit else ""
    low, middle, high = min(figure.values), figure.median, max(figure.values)
    met = {None: "", True: "yes", False: "**no**"}[figure.holds]
    what = f"_rival:_ {figure.what}" if figure.rival else figure.what
    target = figure.target.text(figure.unit) if figure.target else ""
    return (what, number(low), f"{number(middle)}{unit}", number(high), str(len(figure.values)), target, met)


def table(rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table whose columns line up in plain text as well."""
    lines = [_HEAD, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    drawn = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([drawn[0], rule, *drawn[1:]])


def markdown(section: Section, setting: Setting) -> str:
    """One section of the document: what was measured, the table, how, where."""
    parts = [
        f"### {section.name}: {section.title}",
        table(row(figure) for figure in section.figures),
        "\n".join(f"- {note}" for note in section.notes),
        where(setting),
    ]
    return "\n\n".join(part for part in parts if part)


def where(setting: Setting) -> str:
    return (
        f"`{setting.command}` on {setting.date}: {setting.cores} cores ({setting.cpu}), {setting.memory_gb:g} GB, "
        f"Linux {setting.kernel}, load {setting.load:g} before; Python {setting.python}, fleet {setting.fleet}, "
        f"syft {setting.syft}, torch {setting.torch}."
    )


def document(sections: Iterable[Section], setting: Setting) -> dict[str, Any]:
    """Everything, for ``--json``."""
    return {"setting": asdict(setting), "benches": [_told(section) for section in sections]}


def _told(section: Section) -> dict[str, Any]:
    figures = [
        {
            **{key: value for key, value in asdict(figure).items() if key != "target"},
            "min": min(figure.values),
            "median": figure.median,
            "max": max(figure.values),
            "target": figure.target.text(figure.unit) if figure.target else None,
            "met": figure.holds,
        }
        for figure in section.figures
    ]
    return {
        "name": section.name,
        "title": section.title,
        "met": section.holds,
        "figures": figures,
        "notes": section.notes,
    }


class NoPlace(Exception):
    """The document has no markers for this bench."""


def filled(text: str, name: str, body: str) -> str:
    """``text`` with ``body`` between the markers of the bench ``name``. Raises NoPlace."""
    pattern = re.compile(rf"(<!-- bench {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)", re.DOTALL)
    if not pattern.search(text):
        raise NoPlace(f"it has no <!-- bench {name} --> … <!-- end {name} -->")
    return pattern.sub(lambda found: f"{found[1]}{body}\n{found[2]}", text, count=1)
