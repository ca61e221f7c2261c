"""Runs the rounds: sends work to the datasites, waits, averages. Time, waiting and threads are passed in.

``rounds`` and ``aggregation`` make all decisions. This module only carries them out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from central.federated import rounds
from central.federated.aggregation import average, problem_with
from central.federated.participants import Parameters, Participant, Refused, TrainingConfig
from central.federated.rounds import Answered, Failed, Outcome, Round, RoundFact, RoundRules, Turn, TurnState


class Outside(Protocol):
    """A clock, a way to run work in the background, and a wait for its result."""

    def now(self) -> float: ...

    def begin(self, work: Callable[[], RoundFact]) -> None: ...

    def wait(self, until: float) -> RoundFact | None: ...


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for display. ``kind``: round, asked, answered, failed, refused, late, done."""

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
    ) -> None:
        self._participants = {participant.name: participant for participant in participants}
        self._config = config
        self._rules = rules
        self._outside = outside
        self._tell = tell
        self._busy: dict[str, int] = {}

    def run(self, parameters: Parameters, first: int, last: int) -> Iterator[Result]:
        """Run rounds ``first`` to ``last``, with one result each. Raises QuorumMissed."""
        for number in range(first, last + 1):
            result = self._round(number, parameters)
            parameters = result.parameters
            yield result

    def _round(self, number: int, parameters: Parameters) -> Result:
        began = self._outside.now()
        self._tell(Event("round", number))
        played = rounds.opened(number, list(self._participants), self._busy, self._rules, began)
        while (ended := rounds.outcome(played, self._outside.now())) is None:
            played = self._ask(played, parameters)
            if (fact := self._outside.wait(rounds.wakes(played))) is not None:
                played = self._take(played, fact, parameters)
        shares = tuple(_share(name, turn) for name, turn in played.turns.items())
        if ended is Outcome.QUORUM_MISSED:
            raise QuorumMissed(number, self._rules.quorum, shares)
        self._tell(Event("done", number, text=_left_out(shares)))
        return Result(number, average(played.updates()), shares, self._outside.now() - began)

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
        self._busy.pop(fact.name, None)
        fact = _judged(fact, parameters)
        self._tell(_event(fact, played.number))
        return rounds.take(played, fact, self._outside.now())


def _trained(
    participant: Participant, number: int, parameters: Parameters, config: Mapping[str, object], timeout: float
) -> RoundFact:
    try:
        return Answered(participant.name, number, participant.train(parameters, config, timeout))
    except Refused as error:
        return Failed(participant.name, number, str(error), refused=True)
    except Exception as error:  # noqa: BLE001 - any error of one datasite is reported with its name and must not end the training
        return Failed(participant.name, number, str(error) or type(error).__name__)


def _judged(fact: RoundFact, parameters: Parameters) -> RoundFact:
    if isinstance(fact, Answered) and (problem := problem_with(fact.update, parameters)):
        return Failed(fact.name, fact.number, f"update rejected: {problem}", refused=True)
    return fact


def _event(fact: RoundFact, number: int) -> Event:
    if fact.number != number:
        return Event("late", number, fact.name, f"its answer to round {fact.number} came too late and is not used")
    if isinstance(fact, Answered):
        return Event("answered", number, fact.name)
    return Event("refused" if fact.refused else "failed", number, fact.name, fact.reason)


def _share(name: str, turn: Turn) -> Share:
    update = turn.update
    samples, metrics = (update.samples, dict(update.metrics)) if update is not None else (0, {})
    reason = turn.reason or ("" if update is not None else "no answer in time")
    return Share(name, turn.state, samples, metrics, turn.attempts, turn.took, reason)


def _left_out(shares: Sequence[Share]) -> str:
    return ", ".join(f"{share.line} ({share.reason})" for share in shares if share.state is not TurnState.ANSWERED)
