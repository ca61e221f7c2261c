"""A world made of values: a clock that is set by hand, processes that are numbers. It stands behind the real engine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from fleet_common.contract import Phase, StatusDocument
from supervisor.effects.recorder import Kept, fact_line, message_line
from supervisor.engine import Engine
from supervisor.facts import Fact, OperatorAsked, ProbeAnswered, ProcessAdopted, ProcessExited, ProcessStarted
from supervisor.history import Event
from supervisor.messages import Exited, ReloadAsked
from supervisor.orders import Configure, Probe
from supervisor.policy.fleet import FleetMessage, Outcome
from supervisor.policy.lifecycle import Step
from supervisor.policy.placement import Placement, place, requests_of
from supervisor.record import ExitCause, ExitKind, OperatorRequest, WorkerRecord, WorkerState
from supervisor.spec import DatasiteSpec, FleetConfig, WorkerSpec


def status(name: str, generation: int, pid: int, **more: Any) -> StatusDocument:
    more = {"status": "running", "phase": Phase.SERVING, **more}
    return StatusDocument(name, "localhost", 8080, "cpu", generation=generation, pid=pid, **more)


def fleet(*specs: DatasiteSpec, **more: Any) -> FleetConfig:
    return FleetConfig("test", Path("/f/fleet.yaml"), Path("/f/.fleet"), Path("/f/logs"), specs, **more)


class EndOfScript(Exception):
    """The script has nothing more to say, and the engine still waits."""


class FakeMachine:
    """``script`` is a list of functions, called one per wait; each returns the messages of that wake-up.

    A launch makes a process at once (pid 1000, 1001, …) unless its name is in ``unlaunchable``; a probe is answered
    at once unless the name is in ``hung``; a signal ends a process at once unless it is in ``stubborn``.
    """

    def __init__(self, script: list[Callable[[FakeMachine], list[Any]]]) -> None:
        self.script = list(script)
        self.time = 0.0
        self.done: list[tuple[Any, ...]] = []
        self.events: list[Event] = []
        self.noted: list[tuple[Fact, Step, float]] = []
        self.journal: list[dict[str, Any]] = []
        self.cores = 2
        self.placement = Placement()
        self.pinned: dict[str, WorkerRecord] = {}
        self.cleared: list[tuple[WorkerState, int]] = []
        self.hung: set[str] = set()
        self.stubborn: set[str] = set()
        self.alive: dict[int, tuple[str, int]] = {}
        self.causes: dict[int, ExitCause] = {}
        self._queue: list[Any] = []
        self._next_pid = 1000

    # --- what a script does ---

    def die(self, name: str, cause: ExitCause) -> list[Any]:
        pid, generation = next((p, g) for p, (n, g) in self.alive.items() if n == name)
        del self.alive[pid]
        self.causes[pid] = cause
        return [Exited(name, generation, pid)]

    # --- what the engine asks ---

    def now(self) -> float:
        return self.time

    def wait(self, timeout: float | None) -> list[Any]:
        if self._queue:
            messages, self._queue = self._queue, []
            return messages
        if not self.script:
            raise EndOfScript
        messages = self.script.pop(0)(self)
        if not messages and timeout is not None:
            self.time += timeout
        return messages

    def launch(self, spec: WorkerSpec, generation: int) -> None:
        self.done.append(("launch", spec.name, generation))
        pid, self._next_pid = self._next_pid, self._next_pid + 1
        self.alive[pid] = (spec.name, generation)
        self._queue += [ProcessStarted(spec.name, generation, pid, pid), status(spec.name, generation, pid)]

    def terminate(self, pid: int) -> None:
        self.done.append(("terminate", self.alive[pid][0]))
        self._end(pid, ExitCause(ExitKind.CLEAN, "exit code 0", 0))

    def kill(self, pid: int) -> None:
        self.done.append(("kill", self.alive[pid][0]))
        self.stubborn.discard(self.alive[pid][0])
        self._end(pid, ExitCause(ExitKind.SIGNAL, "SIGKILL", -9))

    def _end(self, pid: int, cause: ExitCause) -> None:
        name, generation = self.alive[pid]
        if name not in self.stubborn:
            del self.alive[pid]
            self._queue.append(ProcessExited(name, generation, cause))

    def probe(self, order: Probe, spec: WorkerSpec) -> None:
        pid = next((p for p, (name, _) in self.alive.items() if name == spec.name), 0)
        answer = None if spec.name in self.hung else status(spec.name, order.generation, pid)
        self._queue.append(ProbeAnswered(spec.name, order.generation, answer, "no answer" if answer is None else ""))

    def configure(self, order: Configure, spec: WorkerSpec) -> None:
        self.done.append(("configure", order.name, order.generation))

    def abandon_launches(self) -> None:
        self.done.append(("abandon",))

    def watch(self, started: ProcessStarted | ProcessAdopted, spec: WorkerSpec) -> bool:
        return True

    def place(self, asked: ReloadAsked, running: Collection[str]) -> Placement:
        stay = set(running) - set(self.placement.unseen)
        return place(requests_of(asked.config), asked.cards, self.placement.assignments, stay)

    def use(self, config: FleetConfig, placement: Placement) -> None:
        self.config = config
        self.placement = placement

    def note(self, message: FleetMessage, made: Outcome, now: float) -> None:
        if isinstance(message, Kept):
            self.journal.append(message_line(message, now))
        for fact, step in made.steps:
            self.noted.append((fact, step, now))
            self.journal.append(fact_line(fact, step, now))

    def tell(self, events: Iterable[Event]) -> None:
        self.events += events

    def collect(self, exited: Exited) -> ExitCause:
        return self.causes.pop(exited.pid)

    def clear(self, exited: Exited) -> None:
        """With what was shown and how often it had been launched when it happened."""
        launches = sum(did[:2] == ("launch", exited.name) for did in self.done)
        self.cleared.append((self.pinned[exited.name].state, launches))

    def pin(self, config: FleetConfig, records: Mapping[str, WorkerRecord], *, stopping: bool) -> None:
        self.pinned = dict(records)


Script = list[Callable[[FakeMachine], list[Any]]]


def play(
    config: FleetConfig,
    script: Script,
    remembered: Mapping[str, WorkerRecord] | None = None,
    first: Iterable[Any] | None = None,
) -> FakeMachine:
    """Start every line and play the script through the real engine, until the script or the fleet ends.

    ``first``: what the engine is told instead of to start every line.
    """
    machine = FakeMachine(script)
    engine = Engine(config, machine, remembered)
    everyone = [OperatorAsked(spec.name, OperatorRequest.START) for spec in config.workers]
    with contextlib.suppress(EndOfScript):
        engine.run(everyone if first is None else first)
    return machine
