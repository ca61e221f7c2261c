"""Histories that real fleets recorded, replayed: today's ``step`` must decide as the one did that ran the fleet.

tests/histories/*.jsonl are journals of real runs (``scripts/chaos --record``), trimmed to one line's facts. A change of
policy that is meant to decide otherwise comes with new recordings; one that is not meant to is caught here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import TypeAdapter

from supervisor import facts
from supervisor.effects.recorder import fact_line, read_lines, rules_line
from supervisor.facts import Fact
from supervisor.policy.lifecycle import step
from supervisor.record import ExitCause, ExitKind, OperatorRequest, WorkerRecord, WorkerState
from supervisor.spec import DatasiteSpec, Rules
from tests.unit.fakes import FakeMachine, fleet, play

Line = dict[str, Any]
HISTORIES = sorted((Path(__file__).parents[1] / "histories").glob("*.jsonl"))
_FACTS = {kind.__name__: TypeAdapter(kind) for kind in get_args(Fact)}
_RULES = TypeAdapter(dict[str, Rules])
_ADDED_TO_FACTS = {"t", "fact", "s", "g", "o"}
_STATUS = {"factory_hostname": "", "factory_port": 0, "device": "", "status": ""}  # what policy never looks at


def fact_of(line: Line) -> Fact:
    values = {key: value for key, value in line.items() if key not in _ADDED_TO_FACTS}
    if values.get("status"):
        values["status"] = {**_STATUS, **values["status"]}
    fact: Fact = _FACTS[line["fact"]].validate_python(values)
    return fact


def replay(lines: Iterable[Line]) -> list[tuple[int, Line, Line]]:
    """Where ``step`` decides otherwise than was recorded: number of the line, what it says, what comes now."""
    records: dict[str, WorkerRecord] = {}
    differences = []
    for number, line in enumerate(lines, 1):
        if "fact" not in line:
            records = _begun(line, records)
            continue
        made = step(records[line["name"]], fact := fact_of(line), line["t"])
        records[line["name"]] = made.record
        now = fact_line(fact, made, line["t"])
        if (told := _decided(line)) != (comes := _decided(now)):
            differences.append((number, told, comes))
    return differences


def _begun(line: Line, records: dict[str, WorkerRecord]) -> dict[str, WorkerRecord]:
    """A chapter begins, or workers join it; one that was taken out and put back before it was down is still known."""
    fresh = {name: WorkerRecord(name, rules) for name, rules in _RULES.validate_python(_new(line)).items()}
    if "rules" in line:
        return fresh
    leaving = {name: record for name, record in records.items() if record.state is not WorkerState.DOWN}
    return {**records, **fresh, **leaving}


def _new(line: Line) -> Any:
    return line["rules"] if "rules" in line else line["added"]


def _decided(line: Line) -> Line:
    return {key: line[key] for key in ("s", "g", "o") if key in line}


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
    ],
)
def test_each_history_tells_its_story(name: str, holds: Callable[[list[Line]], bool]) -> None:
    """Each of the five holds what it is kept for; none is a long silence, and none names a machine's folders."""
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
    lines = [rules_line("rules", {"alpha": fleet(spec).rules(spec)}, 0.0)]
    lines += [fact_line(fact, made, now) for fact, made, now in world.noted]
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


def test_a_line_that_a_reload_brought_is_known_from_then_on() -> None:
    """It begins with nothing known of it; one that is still on its way out is not forgotten."""
    lines = recorded()
    again = [rules_line("added", {"alpha": Rules(), "beta": Rules()}, 1.0), *({**one, "name": "beta"} for one in lines)]
    facts_of_beta = [line for line in again if "rules" not in line]
    assert [] == replay([*lines, *facts_of_beta])
