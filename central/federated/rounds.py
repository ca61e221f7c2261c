"""One round of a federation as a value: which datasites train, which have answered, when it ends. Pure; `now` is an
argument.

A datasite trains once at a time. After a failure it is asked again following a pause: a few times, or, while the quorum
needs it, until the deadline. One that does not answer at all is away: it is probed, and asked once it answers; a round
with a quorum does not wait for it. A round ends when waiting longer cannot change its result, ``grace`` seconds after
the quorum has answered, or at its deadline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from central.federated.participants import Update

_LONGEST_PAUSE = 10.0


class TurnState(StrEnum):
    """The state of one datasite within one round."""

    DUE = "due"  # to be asked, now or after a pause
    BUSY = "busy"  # still training for an earlier round
    AWAY = "away"  # does not answer: to be probed, now or after a pause, or being probed
    TRAINING = "training"
    ANSWERED = "answered"
    REFUSED = "refused"  # a retry in this round would change nothing


class Outcome(StrEnum):
    """How a round ended."""

    DONE = "done"
    QUORUM_MISSED = "quorum missed"


@dataclass(frozen=True, slots=True)
class RoundRules:
    """Times are in seconds. ``retries``: how often a failed datasite is asked again if the quorum does not need it.
    ``grace``: how long a round waits for the others once the quorum has answered; None: until the deadline."""

    quorum: int
    deadline: float
    retries: int = 3
    pause: float = 1.0
    grace: float | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One datasite's part in a round. ``since``: when it was last asked. ``due``: when to ask or probe it. ``probes``:
    how often it was probed."""

    state: TurnState
    due: float = 0.0
    since: float = 0.0
    attempts: int = 0
    probes: int = 0
    took: float = 0.0
    reason: str = ""
    update: Update | None = None


@dataclass(frozen=True, slots=True)
class Round:
    """``turns`` keeps the order of the datasites, whichever answers first. ``reached``: when the quorum was."""

    number: int
    ends: float
    rules: RoundRules
    turns: Mapping[str, Turn]
    reached: float = math.inf

    def updates(self) -> list[Update]:
        return [turn.update for turn in self.turns.values() if turn.update is not None]

    def count(self, *states: TurnState) -> int:
        return sum(turn.state in states for turn in self.turns.values())


@dataclass(frozen=True, slots=True)
class Answered:
    """A datasite returned its update for round ``number``."""

    name: str
    number: int
    update: Update


@dataclass(frozen=True, slots=True)
class Failed:
    """A datasite returned no update for round ``number``. ``refused``: a retry would change nothing. ``away``: it does
    not answer."""

    name: str
    number: int
    reason: str
    refused: bool = False
    away: bool = False


@dataclass(frozen=True, slots=True)
class Probed:
    """Whether a datasite that was away answers now."""

    name: str
    up: bool


RoundFact = Answered | Failed | Probed
Away = Mapping[str, str]
"""Why a datasite is away, by its name."""


def opened(
    number: int, names: Sequence[str], busy: Collection[str], rules: RoundRules, now: float, away: Away | None = None
) -> Round:
    """A new round in which no datasite has been asked yet. ``busy`` datasites first finish their earlier training.
    Datasites that are ``away`` first have to answer; the values say why they are."""
    turns = {name: Turn(TurnState.BUSY if name in busy else TurnState.DUE, due=now) for name in names}
    for name, reason in (away or {}).items():
        turns[name] = Turn(TurnState.AWAY, due=now, reason=reason)
    return Round(number, now + rules.deadline, rules, turns)


def to_ask(played: Round, now: float) -> tuple[str, ...]:
    """The datasites to ask now."""
    return tuple(name for name in _worth_asking(played) if played.turns[name].due <= now < played.ends)


def asked(played: Round, names: Collection[str], now: float) -> Round:
    for name in names:
        turn = played.turns[name]
        played = _with(played, name, replace(turn, state=TurnState.TRAINING, since=now, attempts=turn.attempts + 1))
    return played


def to_probe(played: Round, now: float) -> tuple[str, ...]:
    """The datasites to probe now."""
    return tuple(name for name in _away(played) if played.turns[name].due <= now < played.ends)


def probing(played: Round, names: Collection[str]) -> Round:
    """No second probe of these begins before the answer to this one."""
    for name in names:
        turn = played.turns[name]
        played = _with(played, name, replace(turn, due=math.inf, probes=turn.probes + 1))
    return played


def take(played: Round, fact: RoundFact, now: float) -> Round:
    """The round after ``fact``. An answer to an earlier round only makes its datasite free for this one."""
    turn = played.turns[fact.name]
    if isinstance(fact, Probed):
        return _with(played, fact.name, _after_probe(turn, fact, played.rules, now))
    if isinstance(fact, Failed) and fact.away:
        return _with(played, fact.name, replace(turn, state=TurnState.AWAY, reason=fact.reason, due=now))
    if fact.number != played.number:
        return _with(played, fact.name, replace(turn, state=TurnState.DUE, due=now))
    return _counted(_with(played, fact.name, _after(turn, fact, played.rules, now)), now)


def _after_probe(turn: Turn, fact: Probed, rules: RoundRules, now: float) -> Turn:
    if turn.state is not TurnState.AWAY:
        return turn
    if fact.up:
        return replace(turn, state=TurnState.DUE, due=now)
    return replace(turn, due=now + _pause(rules, turn.probes))


def _after(turn: Turn, fact: Answered | Failed, rules: RoundRules, now: float) -> Turn:
    took = now - turn.since
    if isinstance(fact, Answered):
        return replace(turn, state=TurnState.ANSWERED, took=took, reason="", update=fact.update)
    if fact.refused:
        return replace(turn, state=TurnState.REFUSED, took=took, reason=fact.reason)
    due = now + _pause(rules, turn.attempts)
    return replace(turn, state=TurnState.DUE, took=took, reason=fact.reason, due=due)


def _pause(rules: RoundRules, attempts: int) -> float:
    return min(_LONGEST_PAUSE, rules.pause * 2.0 ** (min(attempts, 10) - 1))


def _counted(played: Round, now: float) -> Round:
    """From the moment when the quorum has answered, the others have ``grace`` seconds."""
    if played.count(TurnState.ANSWERED) < played.rules.quorum:
        return played
    return replace(played, reached=min(played.reached, now))


def outcome(played: Round, now: float) -> Outcome | None:
    """How the round ended; None while it continues."""
    reached = played.count(TurnState.ANSWERED) >= played.rules.quorum
    if now < _last(played) and _open(played, reached):
        return None
    return Outcome.DONE if reached else Outcome.QUORUM_MISSED


def _last(played: Round) -> float:
    """When the round ends at the latest."""
    grace = played.rules.grace
    return played.ends if grace is None else min(played.ends, played.reached + grace)


def wakes(played: Round) -> float:
    """When to check again even if nothing happens: at the end of a pause, or at the deadline."""
    waiting = (*_worth_asking(played), *_away(played))
    return min([_last(played), *(played.turns[name].due for name in waiting)])


def _open(played: Round, reached: bool) -> bool:
    if played.count(TurnState.TRAINING) or _worth_asking(played):
        return True
    return not reached and _can_still(played) >= played.rules.quorum


def _worth_asking(played: Round) -> list[str]:
    due = [name for name, turn in played.turns.items() if turn.state is TurnState.DUE]
    fresh = [name for name in due if played.turns[name].attempts <= played.rules.retries]
    without = played.count(TurnState.ANSWERED, TurnState.TRAINING) + len(fresh)
    needed = without < played.rules.quorum <= _can_still(played)
    return due if needed else fresh


def _away(played: Round) -> list[str]:
    return [name for name, turn in played.turns.items() if turn.state is TurnState.AWAY]


def _can_still(played: Round) -> int:
    """The largest number of updates that the round can still reach."""
    return len(played.turns) - played.count(TurnState.REFUSED)


def _with(played: Round, name: str, turn: Turn) -> Round:
    return replace(played, turns={**played.turns, name: turn})


def quorum_of(asked_for: str, lines: int) -> int:
    """How many of ``lines`` datasites must answer, from ``all``, a number or a share (``60%``). Raises ValueError."""
    text = asked_for.strip().lower()
    if text == "all":
        return lines
    share = _share(text)
    needed = _whole(text) if share is None else math.ceil(round(share * lines, 9))
    if not 1 <= needed <= lines:
        raise ValueError(f"a quorum of {asked_for} means {needed} of {lines} datasites; expected 1 to {lines}")
    return needed


def _share(text: str) -> float | None:
    """0.6 for ``60%`` and ``0.6``; None for a whole number."""
    if text.endswith("%"):
        return _number(text[:-1]) / 100
    return _number(text) if "." in text else None


def _number(text: str) -> float:
    if not re.fullmatch(r"\d*\.?\d+|\d+\.", text):
        raise ValueError(f"expected a quorum such as all, 2 (datasites) or 60%, not {text!r}")
    return float(text)


def _whole(text: str) -> int:
    return int(_number(text))
