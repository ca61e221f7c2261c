"""What was found, as a table, as JSON and as an exit code. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

from fleet_tools.waiting import Trouble


class Unmeasured(Trouble):
    """Something could not be measured; the text says why."""


class Exit(IntEnum):
    """How a run ends."""

    HOLDS = 0
    BROKEN = 1
    WRONG_USE = 2
    NO_GPU = 3
    INTERRUPTED = 130


class State(StrEnum):
    """What became of one check."""

    OK = "ok"
    BROKEN = "NOT OK"
    UNCHECKED = "not checked"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """``seen``: what the machine said, or why it could not be asked."""

    check: str
    promise: str
    state: State
    seen: str


@dataclass(frozen=True, slots=True)
class Setting:
    """Where it was: without it a finding says nothing."""

    gpus: tuple[str, ...]
    torch: str
    fleet: str
    date: str

    def in_words(self) -> str:
        return f"{'; '.join(self.gpus)}\ntorch {self.torch}, fleet {self.fleet}, {self.date}"


def judged(check: str, promise: str, seen: str, faults: Sequence[str]) -> Finding:
    """It holds where nothing was found against it."""
    if faults:
        return Finding(check, promise, State.BROKEN, "; ".join(faults))
    return Finding(check, promise, State.OK, seen)


def exit_code(findings: Iterable[Finding]) -> Exit:
    """What could not be checked does not hold; what this host cannot have (MIG, nvidia-smi) prevents nothing."""
    bad = any(one.state in (State.BROKEN, State.UNCHECKED) for one in findings)
    return Exit.BROKEN if bad else Exit.HOLDS


def in_words(findings: Sequence[Finding]) -> str:
    """The last line."""
    counts = {state: sum(one.state is state for one in findings) for state in State}
    parts = [f"{counts[State.OK]} of {len(findings)} promises hold"]
    parts += [f"{count} {state}" for state, count in counts.items() if count and state is not State.OK]
    return ", ".join(parts)


def table(findings: Sequence[Finding]) -> str:
    """One line a check; what was seen comes last, as it may be long."""
    rows = [("check", "", "what was seen"), *((one.check, str(one.state), one.seen) for one in findings)]
    wide = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:{wide[0]}}  {state:{wide[1]}}  {_one_line(seen)}" for name, state, seen in rows)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def document(findings: Sequence[Finding], setting: Setting | None, verdict: str, code: Exit) -> dict[str, Any]:
    """The stable shape of ``--json``."""
    where = {} if setting is None else {name: getattr(setting, name) for name in ("torch", "fleet", "date")}
    return {
        "verdict": verdict,
        "exit": int(code),
        "gpus": list(setting.gpus) if setting else [],
        **where,
        "checks": [
            {"check": one.check, "promise": one.promise, "state": str(one.state), "seen": one.seen} for one in findings
        ],
    }
