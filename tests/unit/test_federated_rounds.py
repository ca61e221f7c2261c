"""A federation's rounds as a script: lines that answer, fail, come late or lie, on a clock that nobody waits for."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from central.federated.federation import Event, Federation, QuorumMissed, Result
from central.federated.participants import Away, Parameters, Refused, TrainingConfig
from central.federated.rounds import RoundFact, RoundRules, TurnState, quorum_of


@dataclass(frozen=True)
class Handed:
    """An update as a line hands it in."""

    parameters: dict[str, torch.Tensor]
    samples: int = 1
    metrics: dict[str, float] = field(default_factory=dict)


class Script:
    """The outside without time: work is done at once, and its answer comes at the moment that the line named."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.coming: list[tuple[float, int, RoundFact]] = []
        self.takes = 1.0
        self._order = itertools.count()

    def now(self) -> float:
        return self.clock

    def begin(self, work: Callable[[], RoundFact]) -> None:
        self.takes = 1.0
        fact = work()
        heapq.heappush(self.coming, (self.clock + self.takes, next(self._order), fact))

    def aside(self, work: Callable[[], None]) -> None:
        work()

    def wait(self, until: float) -> RoundFact | None:
        if self.coming and self.coming[0][0] <= until:
            self.clock, _, fact = heapq.heappop(self.coming)
            return fact
        self.clock = max(self.clock, until)
        return None


class Line:
    """Adds ``step`` to the weight it is given. ``trouble``: what happens at its first, second … ask instead."""

    def __init__(self, name: str, script: Script, step: float = 1.0, trouble: Sequence[Any] = ()) -> None:
        self.name = name
        self._script = script
        self._step = step
        self._trouble = iter(trouble)
        self.asked: list[tuple[float, float, Mapping[str, Any]]] = []
        self.probed: list[float] = []
        self.up_at = 0.0
        self.cancelled: list[float] = []
        self.busy_with = ""

    def cancel(self) -> None:
        self.cancelled.append(self._script.clock)

    def doing(self) -> str:
        return self.busy_with

    def answers(self) -> bool:
        self.probed.append(self._script.clock)
        self._script.takes = 0.25
        return self._script.clock >= self.up_at

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> Handed:
        self.asked.append((self._script.clock, parameters["weight"].item(), config))
        trouble = next(self._trouble, None)
        if isinstance(trouble, Away):
            self._script.takes = 15.0  # the client's patience
        if isinstance(trouble, Exception):
            raise trouble
        if isinstance(trouble, Handed):
            return trouble
        self._script.takes = trouble or 1.0
        return Handed({"weight": parameters["weight"] + self._step})


START = {"weight": torch.tensor(0.0)}
AWAY = ConnectionError("connection refused")


@dataclass
class Played:
    """What a federation of scripted lines came to."""

    results: list[Result]
    events: list[Event]
    lines: dict[str, Line]
    clock: float

    def weights(self) -> list[float]:
        return [result.parameters["weight"].item() for result in self.results]

    def states(self, number: int) -> dict[str, str]:
        return {share.line: str(share.state) for share in self.results[number - 1].shares}

    def told(self, kind: str) -> list[tuple[int, str, str]]:
        return [(event.number, event.line, event.text) for event in self.events if event.kind == kind]


def play(
    trouble: Mapping[str, Sequence[Any]],
    rounds: int = 2,
    quorum: str = "all",
    seed: int = 0,
    away: Mapping[str, float] | None = None,
    **rules: Any,
) -> Played:
    """Lines a, b and c, which add 0, 3 and 6 to the weight: with all of them, each round adds 3. ``away``: when a line
    answers that does not at the start."""
    script = Script()
    lines = {
        name: Line(name, script, step, trouble.get(name, ())) for name, step in (("a", 0.0), ("b", 3.0), ("c", 6.0))
    }
    for name, moment in (away or {}).items():
        lines[name].up_at = moment
    events: list[Event] = []
    how = RoundRules(quorum_of(quorum, 3), **{"deadline": 60.0, **rules})
    reasons = dict.fromkeys(away or {}, "it does not answer")
    federation = Federation(list(lines.values()), TrainingConfig(seed=seed), how, script, events.append, reasons)
    results: list[Result] = []
    played = Played(results, events, lines, 0.0)
    try:
        results.extend(federation.run(START, 1, rounds))
    finally:
        played.clock = script.clock
    return played


def test_each_round_starts_from_the_average_of_the_last() -> None:
    """Three lines that add 0, 3 and 6 add 3 a round between them."""
    played = play({}, rounds=3)
    assert [3.0, 6.0, 9.0] == played.weights()
    assert [0.0, 3.0, 6.0] == [weight for _, weight, _ in played.lines["a"].asked]


def test_a_round_ends_when_the_last_has_answered_and_not_later() -> None:
    """Nobody waits for the deadline when all is said."""
    assert 2.0 == play({}).clock


def test_a_line_that_crashes_and_comes_back_changes_nothing() -> None:
    """It is asked again, with the same parameters and the same seed, and the outcome is the undisturbed one."""
    calm, rough = play({}), play({"b": [AWAY, AWAY]})
    assert calm.weights() == rough.weights()
    first, second, third, _ = rough.lines["b"].asked
    assert (first[1:], first[1:]) == (second[1:], third[1:])
    assert [(1, "b", "connection refused")] * 2 == rough.told("failed")
    assert 3 == rough.results[0].shares[1].attempts


def test_pauses_between_attempts_grow() -> None:
    """One second after the first failure, two after the second, four after the third: no hammering."""
    asked = [moment for moment, _, _ in play({"b": [AWAY] * 3}, rounds=1).lines["b"].asked]
    assert [2.0, 3.0, 5.0] == [later - earlier for earlier, later in itertools.pairwise(asked)]


def test_a_round_goes_on_with_a_quorum_and_the_line_rejoins() -> None:
    """A line that stays away is left out of the round, and asked in the next, with the newest global parameters."""
    played = play({"c": [AWAY] * 4}, quorum="2")
    assert [1.5, 4.5] == played.weights()
    assert [{"a": "answered", "b": "answered", "c": "due"}, dict.fromkeys("abc", "answered")] == [
        played.states(1),
        played.states(2),
    ]
    assert 1.5 == played.lines["c"].asked[-1][1]
    assert [(1, "", "c (connection refused)"), (2, "", "")] == played.told("done")


def test_a_line_without_which_there_is_no_quorum_is_asked_until_the_deadline() -> None:
    """Retries are for lines that the round could do without; one that is needed is asked on and on."""
    played = play({"c": [AWAY] * 6}, rounds=1)
    assert [3.0] == played.weights()
    assert 7 == len(played.lines["c"].asked)


def test_too_few_lines_end_the_training_and_are_named() -> None:
    """Below the quorum there are no new parameters: the reason names each line that is missing, and why."""
    with pytest.raises(QuorumMissed) as missed:
        play({"b": [AWAY] * 99}, deadline=30.0)
    assert "round 1: only 2 of the required 3 datasites answered; missing: b (connection refused)" == str(missed.value)


def test_a_quorum_that_can_no_longer_be_reached_is_told_at_once() -> None:
    """Where a line refuses that is needed, nobody waits for the deadline."""
    script = Script()
    line = Line("a", script, trouble=[Refused("no dataset 'vibration'")])
    federation = Federation([line], TrainingConfig(), RoundRules(1, 600.0), script, lambda _: None)
    with pytest.raises(QuorumMissed, match="no dataset 'vibration'"):
        list(federation.run(START, 1, 1))
    assert 1.0 == script.clock


def test_a_line_that_refuses_is_not_asked_again_in_this_round() -> None:
    """It has answered, and would answer the same; the next round asks it anew."""
    played = play({"c": [Refused("not approved")]}, quorum="2")
    assert [1.5, 4.5] == played.weights()
    assert 2 == len(played.lines["c"].asked)
    assert [(1, "c", "not approved")] == played.told("refused")


@pytest.mark.parametrize(
    ("value", "why"),
    [(torch.tensor(torch.nan), "not finite"), (torch.zeros(2), "shape (2,) instead of ()")],
)
def test_an_update_that_would_spoil_the_average_is_rejected_with_its_line(value: torch.Tensor, why: str) -> None:
    """NaN or a wrong shape from one line: the round goes on without it, and says whose it was."""
    played = play({"b": [Handed({"weight": value})]}, quorum="2")
    assert [3.0, 6.0] == played.weights()
    ((number, line, text),) = played.told("refused")
    assert (1, "b") == (number, line)
    assert "update rejected: weight" in text
    assert why in text


def test_a_straggler_is_left_out_at_the_deadline_and_not_asked_twice() -> None:
    """While it is at work for round 1, rounds 2 and 3 go on without asking it; what comes late is dropped and told;
    then it takes part again, from the newest parameters."""
    played = play({"c": [150.0]}, rounds=4, quorum="2", deadline=60.0)
    assert [1.5, 3.0, 4.5, 6.0] == played.weights()
    assert {"a": "answered", "b": "answered", "c": "busy"} == played.states(2)
    assert 1 == len(played.lines["c"].asked)
    assert "c (no answer in time)" == played.told("done")[0][2]


def test_what_a_round_does_not_wait_for_is_cancelled() -> None:
    """At the deadline and at the end of the grace, and also when the quorum is missed: it would not be used, and would
    keep the datasite from the next round."""
    played = play({"c": [150.0]}, rounds=2, quorum="2", deadline=60.0)
    assert ([], [60.0]) == (played.lines["a"].cancelled, played.lines["c"].cancelled)
    assert [6.0] == play({"c": [150.0]}, rounds=1, quorum="2", grace=5.0).lines["c"].cancelled
    script = Script()
    line = Line("a", script, trouble=[150.0])
    line.busy_with = "queued: other jobs take all training sessions there"
    federation = Federation([line], TrainingConfig(), RoundRules(1, 60.0), script, lambda _: None)
    with pytest.raises(QuorumMissed, match=r"a \(no answer in time: queued: other jobs take all training sessions"):
        list(federation.run(START, 1, 1))
    assert [60.0] == line.cancelled


def test_what_comes_late_is_dropped_and_told_and_the_line_joins_the_round_in_progress() -> None:
    """A late update is never averaged: it was made from parameters that are no longer the newest."""
    played = play({"c": [70.0], "b": [None, 20.0]}, rounds=2, quorum="2", deadline=60.0)
    assert [1.5, 4.5] == played.weights()
    assert [(2, "c", "its answer to round 1 came too late and is not used")] == played.told("late")
    assert [(0.0, 0.0), (70.0, 1.5)] == [(moment, weight) for moment, weight, _ in played.lines["c"].asked]


def test_when_the_quorum_needs_a_straggler_it_is_waited_for() -> None:
    """With two of three needed and one away for good, the round waits for the slow one."""
    played = play({"a": [AWAY] * 99, "c": [50.0]}, rounds=1, quorum="2")
    assert [4.5] == played.weights()


def test_a_round_with_a_quorum_does_not_wait_for_a_line_that_is_down() -> None:
    """It is probed once a round, not asked, and named; once it answers it is asked, from the newest parameters."""
    down = play({}, rounds=3, quorum="2", away={"c": 99.0})
    assert ([1.5, 3.0, 4.5], 3.0) == (down.weights(), down.clock)
    assert ([], 3) == (down.lines["c"].asked, len(down.lines["c"].probed))
    assert "away" == down.states(3)["c"]
    assert "c (it does not answer)" == down.told("done")[0][2]
    assert [(1, "c", "it does not answer")] == down.told("failed")
    back = play({}, rounds=3, quorum="2", away={"c": 1.5})
    assert [1.5, 3.0, 6.0] == back.weights()
    assert [(2.25, 3.0)] == [(moment, weight) for moment, weight, _ in back.lines["c"].asked]
    assert [(3, "c", "")] == back.told("back")


def test_a_line_that_goes_down_is_waited_for_once() -> None:
    """For as long as the client is patient; the next rounds go on without it until it answers."""
    played = play({"c": [1.0, Away("gone")]}, rounds=4, quorum="2")
    assert [1.0, 15.0] == [played.results[0].seconds, played.results[1].seconds]
    assert [3.0, 4.5, 7.5, 10.5] == played.weights()


def test_a_line_that_is_down_is_waited_for_while_the_quorum_needs_it() -> None:
    """It is probed after ever longer pauses, and asked as soon as it answers."""
    played = play({}, rounds=1, away={"c": 6.0})
    assert [3.0] == played.weights()
    assert [0.0, 1.25, 3.5, 7.75] == played.lines["c"].probed
    assert [8.0] == [moment for moment, _, _ in played.lines["c"].asked]
    with pytest.raises(QuorumMissed, match=r"missing: c \(it does not answer\)"):
        play({}, rounds=1, away={"c": 99.0}, deadline=30.0)


def test_grace_is_how_long_the_others_have_once_the_quorum_has_answered() -> None:
    """A straggler that comes within it counts; the round ends when it is over."""
    patient = play({"c": [9.0]}, rounds=1, quorum="2", grace=10.0)
    assert ([3.0], 9.0) == (patient.weights(), patient.clock)
    hasty = play({"c": [9.0]}, rounds=1, quorum="2", grace=5.0)
    assert ([1.5], 6.0) == (hasty.weights(), hasty.clock)
    assert "c (no answer in time)" == hasty.told("done")[0][2]
    assert 1.0 == play({"c": [9.0]}, rounds=1, quorum="2", grace=0.0).clock
    with pytest.raises(QuorumMissed):
        play({"b": [50.0], "c": [AWAY] * 99}, rounds=1, quorum="3", grace=5.0)


def test_the_order_of_answers_does_not_matter() -> None:
    """Updates are added up in the order of the lines, so the same updates give the same bits."""
    orders = [
        play({first: [5.0], second: [9.0]}).results[-1].parameters
        for first, second in (("a", "b"), ("b", "c"), ("c", "a"))
    ]
    assert all(torch.equal(orders[0]["weight"], other["weight"]) for other in orders)


def test_seeds_differ_by_line_and_round_and_by_nothing_else() -> None:
    """A line asked again in a round gets the seed it had; another run with the same seed gives the same seeds."""

    def seeds(played: Played) -> list[list[int]]:
        return [[config["seed"] for _, _, config in line.asked] for line in played.lines.values()]

    once, again, other = seeds(play({})), seeds(play({})), seeds(play({}, seed=1))
    assert once == again
    assert 12 == len({seed for line in (*once, *other) for seed in line})


@pytest.mark.parametrize(
    ("text", "needed"), [("all", 20), ("1", 1), ("20", 20), ("60%", 12), ("0.55", 11), ("1.0", 20), ("1%", 1)]
)
def test_a_quorum_is_all_a_number_or_a_share(text: str, needed: int) -> None:
    """Shares are rounded up."""
    assert needed == quorum_of(text, 20)


@pytest.mark.parametrize("text", ["0", "21", "0%", "most", "-1", "", "1e3", "nan%", "150%"])
def test_a_quorum_that_makes_no_sense_is_an_error(text: str) -> None:
    """More lines than there are, none at all, or no number."""
    with pytest.raises(ValueError, match="quorum"):
        quorum_of(text, 20)


def test_states_are_words_of_the_metrics() -> None:
    """What metrics files call a line's part in a round is fixed: programs read it."""
    assert ["due", "busy", "away", "training", "answered", "refused"] == [str(state) for state in TurnState]
