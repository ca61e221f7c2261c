"""Histories that real fleets recorded, replayed: today's ``advance`` must decide as the one did that ran the fleet.

tests/histories/*.jsonl are journals of real runs (``scripts/chaos --record``), trimmed to one line's facts; fleet.jsonl
is that of a whole fleet through two reloads, one that was refused, and its stop. A change of policy that is meant to
decide otherwise comes with new recordings; one that is not meant to is caught here.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from supervisor import facts
from supervisor.cards import Card, Process
from supervisor.effects.recorder import Kept, fact_line, read_lines, rules_line
from supervisor.facts import Fact
from supervisor.messages import CardsLost, DownAsked, Message, ReloadAsked
from supervisor.policy.fleet import FleetMessage, FleetState, Member, advance
from supervisor.policy.placement import Placement
from supervisor.record import ExitCause, ExitKind, OperatorRequest, WorkerRecord, WorkerState
from supervisor.spec import Admin, DatasiteSpec, FleetConfig, Rules, StartupPolicy
from tests.unit.fakes import FakeMachine, fleet, play

Line = dict[str, Any]
HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))
_FACTS = {kind.__name__: TypeAdapter(kind) for kind in get_args(Fact)}
_MESSAGES = {kind.__name__: TypeAdapter(kind) for kind in get_args(Kept)}
_RULES = TypeAdapter(dict[str, Rules])
_ADDED_TO_FACTS = {"t", "fact", "s", "g", "o"}
_STATUS = {"factory_hostname": "", "factory_port": 0, "device": "", "status": ""}  # what policy never looks at


def fact_of(line: Line) -> Fact:
    values = {key: value for key, value in line.items() if key not in _ADDED_TO_FACTS}
    if values.get("status"):
        values["status"] = {**_STATUS, **values["status"]}
    fact: Fact = _FACTS[line["fact"]].validate_python(values)
    return fact


def message_of(line: Line) -> Kept:
    values = {key: value for key, value in line.items() if key not in ("t", "message")}
    message: Kept = _MESSAGES[line["message"]].validate_python(values)
    return message


class Replay:
    """``advance`` is given each message and each fact that nothing in the recording brought about.

    ``differences``: where it decides otherwise than was recorded: number of the line, what it says, what comes now.
    """

    def __init__(self) -> None:
        self.state = FleetState({}, frozenset(), {}, StartupPolicy())
        self.differences: list[tuple[int, Line, Line]] = []
        self._due: deque[Line] = deque()  # what has come of the last message, and has still to be found recorded

    def read(self, number: int, line: Line) -> None:
        if "fact" in line:
            self._check(number, line)
        elif "message" in line:
            self._nothing_is_due(number)
            self._advance(message_of(line), line["t"])
        else:
            self._begin(line)

    def _check(self, number: int, line: Line) -> None:
        if not self._due:
            self._advance(fact_of(line), line["t"])
        told, comes = _decided(line), _decided(self._due.popleft()) if self._due else {}
        if told != comes:
            self.differences.append((number, told, comes))

    def _nothing_is_due(self, number: int) -> None:
        self.differences += [(number, {}, _decided(line)) for line in self._due]
        self._due.clear()

    def _advance(self, message: FleetMessage, now: float) -> None:
        made = advance(self.state, message, now)
        self.state = made.state
        self._due += [fact_line(fact, step, now) for fact, step in made.steps]

    def _begin(self, line: Line) -> None:
        """A chapter begins, or (in journals of old) workers join it; one that was taken out and put back before it was
        down is still known."""
        rules = _RULES.validate_python(line["rules"] if "rules" in line else line["added"])
        members = {name: Member(0, 0, one) for name, one in rules.items()}
        records = {name: WorkerRecord(name, one) for name, one in rules.items()}
        if "added" in line:
            leaving = {name: one for name, one in self.state.records.items() if one.state is not WorkerState.DOWN}
            members, records = {**self.state.members, **members}, {**self.state.records, **records, **leaving}
        self.state = FleetState(members, frozenset(members), records, StartupPolicy())


def replay(lines: Iterable[Line]) -> list[tuple[int, Line, Line]]:
    world = Replay()
    for number, line in enumerate(lines, 1):
        world.read(number, line)
    return world.differences


def _decided(line: Line) -> Line:
    return {key: line[key] for key in ("fact", "name", "s", "g", "o") if key in line}


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_recorded_history_replays(path: Path) -> None:
    """The same state, generation and orders after every single fact."""
    assert [] == replay(read_lines(path))


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("crash", lambda lines: "ProcessExited" in kinds(lines)),
        ("hang", lambda lines: any("Kill" in line.get("o", ()) for line in lines)),
        ("adoption", lambda lines: "ProcessAdopted" in kinds(lines)),
        ("port-taken", lambda lines: "quarantined" in {line.get("s") for line in lines}),
        ("reload", lambda lines: "RulesChanged" in kinds(lines)),
        (
            "fleet",
            lambda lines: ["Reload"] * 3 + ["DownAsked"] == [line["message"] for line in lines if "message" in line],
        ),
    ],
)
def test_each_history_tells_its_story(name: str, holds: Callable[[list[Line]], bool]) -> None:
    """Each of the six holds what it is kept for; none is a long silence, and none names a machine's folders."""
    (path,) = (path for path in HISTORIES if path.stem == name)
    lines = list(read_lines(path))
    assert holds(lines)
    assert {"starting", "ready"} <= {line["s"] for line in lines if "fact" in line}
    assert path.stat().st_size <= 60 * 1024
    assert "/tmp" not in path.read_text()


def kinds(lines: list[Line]) -> set[str]:
    return {line["fact"] for line in lines if "fact" in line}


# --- the replaying itself ---


def recorded() -> list[Line]:
    """A crash, an operator's stop and a start, as the recorder would write them."""
    spec = DatasiteSpec("alpha", 8080)
    killed = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL")
    requests = [OperatorRequest.STOP, OperatorRequest.START]
    script: list[Callable[[FakeMachine], list[Any]]] = [lambda world: world.die("alpha", killed)]
    script += [lambda world, asked=one: [facts.OperatorAsked("alpha", asked)] for one in requests]  # type: ignore[misc]
    world = play(fleet(spec), script)
    return written(fleet(spec), world)


def written(config: FleetConfig, world: FakeMachine) -> list[Line]:
    """The journal of ``world``, as it comes back out of JSON."""
    rules = {spec.name: config.rules(spec) for spec in config.workers}
    lines = [rules_line(rules, 0.0), *world.journal]
    return [json.loads(json.dumps(line)) for line in lines]


def test_what_is_written_can_be_replayed() -> None:
    """Every kind of value comes back out of JSON as it went in."""
    lines = recorded()
    assert {"ProcessExited", "OperatorAsked", "ProbeAnswered", "PulseReceived"} <= kinds(lines)
    assert [] == replay(lines)


def test_another_decision_is_found() -> None:
    """A recording that says otherwise is told with its line."""
    lines = recorded()
    where = next(n for n, line in enumerate(lines) if "Launch" in line.get("o", ()))
    lines[where]["o"] = ["Kill"]
    ((number, told, comes),) = replay(lines)
    assert (where + 1, ["Kill"], ["Launch"]) == (number, told["o"], comes["o"])


def test_a_line_that_an_added_line_brought_is_known_from_then_on() -> None:
    """Journals of earlier versions have it before a reload's facts. It begins with nothing known of it; one that is
    still on its way out is not forgotten."""
    lines = recorded()
    added = {"t": 1.0, "added": rules_line({"alpha": Rules(), "beta": Rules()}, 1.0)["rules"]}
    facts_of_beta = [{**line, "name": "beta"} for line in lines if "fact" in line]
    assert [] == replay([*lines, json.loads(json.dumps(added)), *facts_of_beta])


# --- reloads and stops ---

ALPHA, BETA, GAMMA = DatasiteSpec("alpha", 8080), DatasiteSpec("beta", 8081), DatasiteSpec("gamma", 8082)


def reloaded() -> list[Line]:
    """One line is added, one removed, one restarts and one has other rules; another reload is refused; the fleet stops."""
    changed = fleet(replace(ALPHA, verbose=True, admin=SECRET), GAMMA, shutdown_grace=3.0)
    moved = replace(changed, log_dir=Path("/elsewhere"))
    back = fleet(ALPHA, BETA)
    messages: list[Message] = [ReloadAsked(changed), ReloadAsked(moved), ReloadAsked(back), DownAsked()]
    return written(fleet(ALPHA, BETA), play(fleet(ALPHA, BETA), [tell(one) for one in messages]))


def tell(message: Message) -> Callable[[FakeMachine], list[Any]]:
    return lambda _: [message]


SECRET = Admin(password="hunter22-hunter22")


def test_a_reload_replays() -> None:
    """Who was started, stopped and restarted by it, and that it was refused, comes of the recorded message again."""
    lines = reloaded()
    assert ["Reload", "Reload", "Reload", "DownAsked"] == [line["message"] for line in lines if "message" in line]
    assert {"RulesChanged", "OperatorAsked"} <= kinds(lines)
    assert [] == replay(lines)


def test_another_decision_about_a_reload_is_found() -> None:
    """Whether a fact is missing or one is there that nothing brings about."""
    lines = reloaded()
    (where, *_) = (number for number, line in enumerate(lines) if "message" in line)
    asked = lines[where]
    without_removal = {**asked, "plan": {**asked["plan"], "remove": []}}
    assert replay([*lines[:where], without_removal, *lines[where + 1 :]])
    refused = next(number for number, line in enumerate(lines) if line.get("plan", {}).get("refused"))
    accepted = {**lines[refused], "plan": {**asked["plan"], "add": [], "remove": []}}
    assert replay([*lines[:refused], accepted, *lines[refused + 1 :]])


def test_a_loss_of_gpus_replays() -> None:
    """With what was seen of the host, its processes included, and where the lines went."""
    card = Card("GPU-0", 0, "H100", 80, 80, processes=(Process(7, 1), Process(8)))
    had: dict[str, tuple[str, ...]] = {"alpha": ("GPU-1",), "beta": ()}

    def lose(world: FakeMachine) -> list[Any]:
        world.config, world.placement = fleet(ALPHA, BETA), Placement(had)
        return [CardsLost({"alpha": "gone"}, had, (card,), ("beta",))]

    lines = written(fleet(ALPHA, BETA), play(fleet(ALPHA, BETA), [lose]))
    assert ["GpuLoss"] == [line["message"] for line in lines if "message" in line]
    assert "gpu_lost" in {line.get("by") for line in lines}
    assert [] == replay(lines)


def test_a_recorded_reload_holds_no_secret() -> None:
    """Neither password nor environment: the journal tells what was decided, not what fleet.yaml says."""
    assert "hunter22" not in json.dumps(reloaded())
