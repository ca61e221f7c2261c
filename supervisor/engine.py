"""The one loop: wait, take facts, ``step``, carry out the orders. The only place where policy meets effects.

It holds the records and nothing else. What is outside is behind ``Effects``, so that a scripted history can be played
through the very same loop.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable
from typing import Any, Protocol

from datasite_worker.contract import StatusDocument
from supervisor.effects.control import FleetAsked
from supervisor.effects.inbox import Exited, Signalled
from supervisor.facts import (
    DeadlineReached,
    Fact,
    OperatorAsked,
    ProcessAdopted,
    ProcessExited,
    ProcessStarted,
    PulseReceived,
)
from supervisor.orders import Kill, Launch, Order, Probe, Terminate
from supervisor.policy.lifecycle import next_due, step
from supervisor.policy.narration import is_warning, narrate
from supervisor.record import ExitCause, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import DASHBOARD_NAME, FleetConfig, Rules, WorkerSpec

log = logging.getLogger("fleet")


class Effects(Protocol):
    """What the engine can do to the world, and how it learns of it."""

    def now(self) -> float: ...
    def wait(self, timeout: float | None) -> list[Any]: ...
    def launch(self, spec: WorkerSpec, generation: int) -> None: ...
    def terminate(self, pid: int) -> None: ...
    def kill(self, pid: int) -> None: ...
    def probe(self, order: Probe, spec: WorkerSpec) -> None: ...
    def watch(self, started: ProcessStarted | ProcessAdopted) -> bool: ...
    def collect(self, exited: Exited) -> ExitCause: ...
    def pin(self, records: dict[str, WorkerRecord], *, stopping: bool) -> None: ...


class Engine:
    def __init__(self, config: FleetConfig, effects: Effects) -> None:
        self._config = config
        self._effects = effects
        self._stopping = False
        self._records = {
            spec.name: WorkerRecord(spec.name, Rules(spec.restart, spec.probes, config.shutdown_grace))
            for spec in config.workers
        }

    def run(self, first: Iterable[Any]) -> None:
        """Take ``first`` (adoptions, start requests), then go on until the fleet was asked down and is."""
        for message in first:
            self._take(message, self._effects.now())
        self._pin()
        while not self._finished():
            self._turn()

    def _turn(self) -> None:
        before = dict(self._records)
        for message in self._effects.wait(self._patience()):
            self._take(message, self._effects.now())
        self._take_deadlines(self._effects.now())
        self._let_dashboard_go()
        if before != self._records:
            self._pin()

    def _finished(self) -> bool:
        return self._stopping and all(record.state is WorkerState.DOWN for record in self._records.values())

    def _patience(self) -> float | None:
        due = [at for record in self._records.values() if (at := next_due(record)) is not None]
        return max(0.0, min(due) - self._effects.now()) if due else None

    def _take_deadlines(self, now: float) -> None:
        for name, record in list(self._records.items()):
            due = next_due(record)
            if due is not None and due <= now:
                self._apply(DeadlineReached(name, record.generation), now)

    # --- messages to facts ---

    def _take(self, message: Any, now: float) -> None:
        if isinstance(message, StatusDocument):
            self._take_pulse(message, now)
        elif isinstance(message, Exited):
            self._apply(ProcessExited(message.name, message.generation, self._effects.collect(message)), now)
        elif isinstance(message, Signalled):
            self._take_signal(message.number, now)
        elif isinstance(message, FleetAsked):
            self._stop_all(now)
        elif message.name in self._records:
            self._take_fact(message, now)

    def _take_pulse(self, status: StatusDocument, now: float) -> None:
        record = self._records.get(status.factory_name)
        if record is not None and record.pid in (None, status.pid):
            self._apply(PulseReceived(record.name, status.generation, status), now)

    def _take_fact(self, fact: Fact, now: float) -> None:
        self._apply(fact, now)
        if isinstance(fact, ProcessStarted | ProcessAdopted) and not self._effects.watch(fact):
            self._take(Exited(fact.name, fact.generation, fact.pid), now)

    def _take_signal(self, number: signal.Signals, now: float) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            log.info("%s received", number.name)
            if self._stopping:
                self._kill_all()
            else:
                self._stop_all(now)

    # --- the fleet as a whole ---

    def _stop_all(self, now: float) -> None:
        """The datasites first: their last word still reaches the embedded dashboard."""
        if self._stopping:
            return
        self._stopping = True
        log.info("stopping %d datasites", len(self._config.datasites))
        for spec in self._config.datasites:
            self._apply(OperatorAsked(spec.name, OperatorRequest.STOP), now)
        self._let_dashboard_go()
        self._pin()

    def _let_dashboard_go(self) -> None:
        board = self._records.get(DASHBOARD_NAME)
        if not self._stopping or board is None or board.wanted is Wanted.DOWN:
            return
        if all(self._records[spec.name].state is WorkerState.DOWN for spec in self._config.datasites):
            self._apply(OperatorAsked(DASHBOARD_NAME, OperatorRequest.STOP), self._effects.now())

    def _kill_all(self) -> None:
        log.warning("asked twice: killing what is left")
        for record in self._records.values():
            if record.pid is not None:
                self._effects.kill(record.pid)

    # --- one worker ---

    def _apply(self, fact: Fact, now: float) -> None:
        before = self._records[fact.name]
        made = step(before, fact, now)
        self._records[fact.name] = made.record
        self._narrate(before, made.record, now)
        for order in made.orders:
            self._carry_out(order)

    def _narrate(self, before: WorkerRecord, after: WorkerRecord, now: float) -> None:
        sentence = narrate(before, after, now)
        if sentence is not None:
            log.log(logging.WARNING if is_warning(after, before) else logging.INFO, "%s: %s", after.name, sentence)

    def _carry_out(self, order: Order) -> None:
        spec = self._config.worker(order.name)
        match order:
            case Launch():
                self._effects.launch(spec, order.generation)
            case Terminate():
                self._effects.terminate(order.pid)
            case Kill():
                self._effects.kill(order.pid)
            case Probe():
                self._effects.probe(order, spec)

    def _pin(self) -> None:
        self._effects.pin(self._records, stopping=self._stopping)
