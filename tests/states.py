"""Makes docs/states.md from ``TABLE``: `.venv/bin/python -m tests.states` writes it.

``page`` is pure. It plays facts to records until no new one appears, so the diagram shows each change of state that
``step`` can make, and no other. Starts no process.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from fleet_common.contract import ExitCode, Phase, StatusDocument
from supervisor import facts
from supervisor.facts import Fact
from supervisor.policy.lifecycle import TABLE, next_due, step
from supervisor.policy.limits import LOOKS
from supervisor.record import ExitCause, ExitKind, OperatorRequest, WorkerRecord, WorkerState
from supervisor.spec import ProbePolicy, ProbeTiming, RestartMode, RestartPolicy, Rules

PAGE = Path(__file__).parents[1] / "docs" / "states.md"
NAME = "line"
KINDS: tuple[type, ...] = get_args(Fact)

Edges = dict[tuple[WorkerState, WorkerState], set[type]]

_QUICK = ProbeTiming(period=1.0, timeout=1.0, failure_threshold=1)
_PATIENT = ProbeTiming(period=1.0, timeout=1.0, failure_threshold=2)
_READINESS_FIRST = ProbePolicy(_PATIENT, readiness=_QUICK, liveness=_PATIENT)
_LIVENESS_FIRST = ProbePolicy(_PATIENT, readiness=_PATIENT, liveness=_QUICK)
_RULES = (
    Rules(RestartPolicy(max_crashes=2), _READINESS_FIRST),
    Rules(RestartPolicy(max_crashes=2), _LIVENESS_FIRST),
    Rules(RestartPolicy(RestartMode.NEVER), _READINESS_FIRST),
)
_SERVING = StatusDocument(NAME, "", 0, "cpu", "running", pid=1, phase=Phase.SERVING)
_TOO_BIG = facts.Load(memory=2, memory_limit=1, memory_looks=LOOKS)
_ENDS = (
    ExitCause(ExitKind.CLEAN, "exit code 0", 0),
    ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL"),
    ExitCause(ExitKind.CONFIGURATION, "port taken", ExitCode.CONFIGURATION),
)


def page(found: Edges) -> str:
    """The whole of docs/states.md."""
    return f"""# The states of a worker

This page is generated from `TABLE` in `supervisor/policy/lifecycle.py`. After a change there, write it anew:

    .venv/bin/python -m tests.states

A test fails while the page is not current. [The glossary](glossary.md) explains the words.

## Changes of state

Each arrow carries the facts that can cause the change. The arrow from `starting` to itself is a new process. The diagram
leaves out facts that change neither state nor process.

```mermaid
{diagram(found)}
```

## Answers

For each fact and each state, the function in `lifecycle.py` that answers.

{answers()}
"""


def edges() -> Edges:
    """Every change of state that ``step`` makes, and the kinds of facts that cause it. A new process counts too."""
    found: Edges = defaultdict(set)
    for rules in _RULES:
        for before, kind, after in _walk(WorkerRecord(NAME, rules)):
            if before.state is not after.state or before.generation != after.generation:
                found[before.state, after.state].add(kind)
    return found


def diagram(found: Edges) -> str:
    """``found`` as the text of a mermaid state diagram."""
    arrows = (
        _arrow(before, after, found) for before in WorkerState for after in WorkerState if (before, after) in found
    )
    return "\n".join(["stateDiagram-v2", f"    [*] --> {WorkerState.DOWN}", *arrows])


def _arrow(before: WorkerState, after: WorkerState, found: Edges) -> str:
    causes = (kind.__name__ for kind in KINDS if kind in found[before, after])
    return f"    {before} --> {after}: {', '.join(causes)}"


def answers() -> str:
    """``TABLE`` as a table of Markdown."""
    head = ["| fact |" + "".join(f" {state} |" for state in WorkerState), "|---|" + "---|" * len(WorkerState)]
    rows = (f"| `{kind.__name__}` |" + "".join(f" {_answer(state, kind)} |" for state in WorkerState) for kind in KINDS)
    return "\n".join([*head, *rows])


def _answer(state: WorkerState, kind: type) -> str:
    name = TABLE[state, kind].__name__
    return "-" if name == "ignore" else f"`{name}`"


def _walk(first: WorkerRecord) -> Iterator[tuple[WorkerRecord, type, WorkerRecord]]:
    """Plays every fact to every record that can come of ``first``; two that differ in times alone count as one."""
    seen = {_shape(first)}
    waiting = [(first, 0.0)]
    while waiting:
        record, now = waiting.pop()
        for fact, at in _next_facts(record, now):
            made = step(record, fact, at).record
            yield record, type(fact), made
            if (shape := _shape(made)) not in seen:
                seen.add(shape)
                waiting.append((made, at))


def _next_facts(record: WorkerRecord, now: float) -> Iterator[tuple[Fact, float]]:
    about = (NAME, record.generation)
    yield facts.LaunchSent(*about), now
    yield facts.ProcessStarted(*about, pid=1, created=1), now
    yield facts.ProcessAdopted(*about, pid=1, created=1, age=1.0), now
    yield facts.LaunchFailed(*about, reason="no memory"), now
    yield facts.PulseReceived(*about, _SERVING), now
    yield facts.ProbeAnswered(*about, _SERVING), now
    yield facts.ProbeAnswered(*about, None, "no answer"), now
    yield facts.RulesChanged(NAME, record.rules, told=True), now
    yield facts.LoadSeen(*about, _TOO_BIG), now
    for cause in _ENDS:
        yield facts.ProcessExited(*about, cause), now
    for request in OperatorRequest:
        yield facts.OperatorAsked(NAME, request), now
    if (due := next_due(record)) is not None:
        yield facts.DeadlineReached(*about), max(due, now)


def _shape(record: WorkerRecord) -> tuple[Any, ...]:
    """What decides about the next state, without times and without counts that only grow."""
    return (
        *(record.state, record.wanted, record.restart_asked, record.killed_for and record.killed_kind),
        *(record.probe_pending, record.pid is None, record.deadline is None),
        *(min(len(record.crashes), 3), min(len(record.limit_ends), 2)),
        *(min(check.failures, 2) for check in (record.readiness, record.liveness)),
    )


if __name__ == "__main__":
    PAGE.write_text(page(edges()), encoding="utf-8")
