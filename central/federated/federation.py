"""Runs the rounds: sends work to the datasites, waits, averages. Time, waiting and threads are passed in.

``rounds`` and ``aggregation`` make all decisions. This module only carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch

from central.federated import rounds
from central.federated.aggregation import average, problem_with
from central.federated.participants import Away, Parameters, Participant, Refused, TrainingConfig
from central.federated.rounds import Answered, Failed, Outcome, Probed, Round, RoundFact, RoundRules, Turn, TurnState


class Outside(Protocol):
    """A clock, a way to run work in the background, and a wait for its result. Nobody waits for what is run aside."""

    def now(self) -> float: ...

    def begin(self, work: Callable[[], RoundFact]) -> None: ...

    def wait(self, until: float) -> RoundFact | None: ...

    def aside(self, work: Callable[[], None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for display. ``kind``: round, asked, answered, failed, refused, late, back, done."""

    kind: str
    number: int
    line: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Share:
    """The part of one datasite in one round. ``line`` is its name."""

    line: str
    state: TurnState
    samples: int
    metrics: Mapping[str, float]
    attempts: int
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Result:
    """A finished round: the new global parameters, and each datasite's share."""

    number: int
    parameters: dict[str, torch.Tensor]
    shares: tuple[Share, ...]
    seconds: float


class QuorumMissed(Exception):
    """Too few datasites answered in time. The global parameters stay those of the previous round."""

    def __init__(self, number: int, quorum: int, shares: Sequence[Share]) -> None:
        self.shares = tuple(shares)
        answered = sum(share.state is TurnState.ANSWERED for share in shares)
        super().__init__(
            f"round {number}: only {answered} of the required {quorum} datasites answered; missing: {_left_out(shares)}"
        )


class Federation:
    """Keeps the order of ``participants``. If all of them answer in every round, the result depends only on the
    parameters, the configuration and the data."""

    def __init__(
        self,
        participants: Sequence[Participant],
        config: TrainingConfig,
        rules: RoundRules,
        outside: Outside,
        tell: Callable[[Event], None],
        away: Mapping[str, str] | None = None,
    ) -> None:
        self._participants = {participant.name: participant for participant in participants}
        self._config = config
        self._rules = rules
        self._outside = outside
        self._tell = tell
        self._busy: dict[str, int] = {}
        self._away = dict(away or {})
        self._probing: set[str] = set()

    def run(self, parameters: Parameters, first: int, last: int) -> Iterator[Result]:
        """Run rounds ``first`` to ``last``, with one result each. Raises QuorumMissed."""
        for name, reason in self._away.items():
            self._tell(Event("failed", first, name, reason))
        for number in range(first, last + 1):
            result = self._round(number, parameters)
            parameters = result.parameters
            yield result

    def _round(self, number: int, parameters: Parameters) -> Result:
        began = self._outside.now()
        self._tell(Event("round", number))
        played = rounds.opened(number, list(self._participants), self._busy, self._rules, began, self._away)
        played = rounds.probing(played, self._probing)
        while (ended := rounds.outcome(played, self._outside.now())) is None:
            played = self._ask(self._probe(played), parameters)
            if (fact := self._outside.wait(rounds.wakes(played))) is not None:
                played = self._take(played, fact, parameters)
        shares = tuple(self._share(name, turn) for name, turn in played.turns.items())
        self._cancel(played)
        if ended is Outcome.QUORUM_MISSED:
            raise QuorumMissed(number, self._rules.quorum, shares)
        self._tell(Event("done", number, text=_left_out(shares)))
        return Result(number, average(played.updates()), shares, self._outside.now() - began)

    def _cancel(self, played: Round) -> None:
        """What comes after the end of its round is not used, and would keep its datasite from the next one."""
        for name, turn in played.turns.items():
            if turn.state is TurnState.TRAINING:
                self._outside.aside(self._participants[name].cancel)

    def _share(self, name: str, turn: Turn) -> Share:
        update = turn.update
        samples, metrics = (update.samples, dict(update.metrics)) if update is not None else (0, {})
        reason = turn.reason or ("" if update is not None else self._late(name))
        return Share(name, turn.state, samples, metrics, turn.attempts, turn.took, reason)

    def _late(self, name: str) -> str:
        doing = self._participants[name].doing()
        return "no answer in time" + (f": {doing}" if doing else "")

    def _probe(self, played: Round) -> Round:
        names = rounds.to_probe(played, self._outside.now())
        for name in names:
            self._probing.add(name)
            self._outside.begin(partial(_probed, self._participants[name]))
        return rounds.probing(played, names)

    def _ask(self, played: Round, parameters: Parameters) -> Round:
        now = self._outside.now()
        names = rounds.to_ask(played, now)
        for name in names:
            self._busy[name] = played.number
            self._tell(Event("asked", played.number, name))
            self._outside.begin(self._work(name, played, parameters, now))
        return rounds.asked(played, names, now)

    def _work(self, name: str, played: Round, parameters: Parameters, now: float) -> Callable[[], RoundFact]:
        participant = self._participants[name]
        config = self._config.told(played.number, name)
        timeout = played.ends - now
        return lambda: _trained(participant, played.number, parameters, config, timeout)

    def _take(self, played: Round, fact: RoundFact, parameters: Parameters) -> Round:
        if isinstance(fact, Probed):
            self._note_probe(fact, played.number)
        else:
            fact = _judged(fact, parameters)
            self._note(fact, played.number)
        return rounds.take(played, fact, self._outside.now())

    def _note(self, fact: Answered | Failed, number: int) -> None:
        self._busy.pop(fact.name, None)
        self._away.pop(fact.name, None)
        if isinstance(fact, Failed) and fact.away:
            self._away[fact.name] = fact.reason
        self._tell(_event(fact, number))

    def _note_probe(self, fact: Probed, number: int) -> None:
        self._probing.discard(fact.name)
        if fact.up and self._away.pop(fact.name, None) is not None:
            self._tell(Event("back", number, fact.name))


def _probed(participant: Participant) -> Probed:
    return Probed(participant.name, participant.answers())


def _trained(
    participant: Participant, number: int, parameters: Parameters, config: Mapping[str, object], timeout: float
) -> RoundFact:
    try:
        return Answered(participant.name, number, participant.train(parameters, config, timeout))
    except Refused as error:
        return Failed(participant.name, number, str(error), refused=True)
    except Away as error:
        return Failed(participant.name, number, str(error), away=True)
    except Exception as error:  # noqa: BLE001 - any error of one datasite is reported with its name and must not end the training
        return Failed(participant.name, number, str(error) or type(error).__name__)


def _judged(fact: Answered | Failed, parameters: Parameters) -> Answered | Failed:
    if isinstance(fact, Answered) and (problem := problem_with(fact.update, parameters)):
        return Failed(fact.name, fact.number, f"update rejected: {problem}", refused=True)
    return fact


def _event(fact: Answered | Failed, number: int) -> Event:
    if isinstance(fact, Failed) and fact.away:
        return Event("failed", number, fact.name, fact.reason)
    if fact.number != number and isinstance(fact, Failed):
        return Event("late", number, fact.name, f"its training for round {fact.number} has ended: {fact.reason}")
    if fact.number != number:
        return Event("late", number, fact.name, f"its answer to round {fact.number} came too late and is not used")
    if isinstance(fact, Answered):
        return Event("answered", number, fact.name)
    return Event("refused" if fact.refused else "failed", number, fact.name, fact.reason)


def _left_out(shares: Sequence[Share]) -> str:
    return ", ".join(f"{share.line} ({share.reason})" for share in shares if share.state is not TurnState.ANSWERED)
