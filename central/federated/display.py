"""The output of a training: a progress bar on a terminal, plain text elsewhere, or JSON, one object per row."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from central.federated.checkpoint import Checkpoint
from central.federated.federation import Event
from central.federated.history import writable
from central.federated.rounds import TurnState

_WORDS = {
    "asked": "training",
    "answered": "done",
    "failed": "failed: {text}",
    "refused": "left out: {text}",
    "late": "training (late)",
    "back": "answers again",
}
_TROUBLE = ("failed", "refused", "late")


def clean(text: str) -> str:
    """Text on one line without control characters: a datasite's reasons are foreign text, and a terminal obeys them."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def sentence(entry: Mapping[str, Any], rounds: int) -> str:
    """``round 3/20  3 of 3 datasites  loss 0.312  accuracy* 0.95  4.2 s``; * is measured at the centre."""
    answered = sum(line["state"] == TurnState.ANSWERED for line in entry["lines"])
    metrics = [f"{name} {value:.4g}" for name, value in entry["mean"].items()]
    metrics += [f"{name}* {value:.4g}" for name, value in entry["global"].items()]
    head = f"round {entry['round']}/{rounds}  {answered} of {len(entry['lines'])} datasites"
    return "  ".join([head, *metrics, f"{entry['seconds']:.1f} s"])


class Plain:
    """Shows rounds on standard output, and problems on standard error."""

    def __init__(self, rounds: int, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._rounds = rounds
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._trouble: dict[str, str] = {}

    def tell(self, event: Event) -> None:
        """A problem that repeats with every attempt of a datasite is shown once a round."""
        warning = f"round {event.number}, {event.line}: {event.text}"
        if event.kind in _TROUBLE and self._trouble.get(event.line) != warning:
            self._trouble[event.line] = warning
            self.warn(warning)

    def done(self, entry: Mapping[str, Any]) -> None:
        self.say(sentence(entry, self._rounds))

    def end(self, kept: Checkpoint, folder: Path) -> None:
        """All rounds are done, and ``folder`` has the results."""
        self.say(f"{kept.number} rounds done; parameters, metrics and plot are in {folder}")

    def say(self, text: str) -> None:
        print(clean(text), file=self._out, flush=True)

    def warn(self, text: str) -> None:
        print(clean(text), file=self._err, flush=True)


class Json(Plain):
    """Shows ``{"event": "round", …}`` for each round, and problems as above."""

    def done(self, entry: Mapping[str, Any]) -> None:
        self._object("round", entry)

    def end(self, kept: Checkpoint, folder: Path) -> None:
        self._object("end", {"rounds": kept.number, "output": str(folder)})

    def _object(self, event: str, values: Mapping[str, Any]) -> None:
        print(json.dumps(writable({"event": event, **values}), allow_nan=False), file=self._out, flush=True)


class Live(Plain):
    """Shows a bar for the rounds and a row for each datasite, and text above them."""

    def __init__(self, rounds: int, done: int, lines: tuple[str, ...], console: Console) -> None:
        super().__init__(rounds)
        self._console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[said]}", markup=False),
            console=console,
            transient=True,
        )
        self._total = self.progress.add_task("rounds", total=rounds, completed=done, said="")
        self._rows: dict[str, TaskID] = {
            name: self.progress.add_task(f"  {name}", total=rounds, completed=done, said="") for name in lines
        }

    def tell(self, event: Event) -> None:
        if event.line:
            said = _WORDS[event.kind].format(text=clean(event.text))
            self.progress.update(
                self._rows[event.line], said=said[: self._console.width // 2], advance=int(event.kind == "answered")
            )
        super().tell(event)

    def done(self, entry: Mapping[str, Any]) -> None:
        self.progress.update(self._total, completed=entry["round"])
        super().done(entry)

    def say(self, text: str) -> None:
        self._console.print(clean(text), soft_wrap=True)

    warn = say


@contextmanager
def shown(rounds: int, done: int, lines: tuple[str, ...], *, as_json: bool, color: bool) -> Iterator[Plain]:
    """The right display: JSON if requested, a live one on a terminal, plain text elsewhere."""
    console = Console(no_color=None if color else True, highlight=False, markup=False, emoji=False)
    if as_json:
        yield Json(rounds)
    elif not sys.stdout.isatty() or console.is_dumb_terminal:
        yield Plain(rounds)
    else:
        live = Live(rounds, done, lines, console)
        with live.progress:
            yield live
