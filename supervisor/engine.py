"""The one loop: wait, take facts, ``step``, carry out the orders. The only place where policy meets effects.

It holds the records and what was asked for, nothing else. What is outside is behind ``Effects``, so that a scripted
history can be played through the very same loop.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from fleet_common.contract import StatusDocument
from supervisor.effects.control import FleetAsked, ReloadAsked
from supervisor.effects.gpu_watch import CardsLost
from supervisor.effects.inbox import Exited, Signalled
from supervisor.facts import (
    DeadlineReached,
    Fact,
    LaunchFailed,
    LaunchSent,
    OperatorAsked,
    ProcessAdopted,
    ProcessExited,
    ProcessStarted,
    PulseReceived,
    RulesChanged,
)
from supervisor.history import FLEET, Event, EventKind
from supervisor.orders import AbandonLaunch, Configure, Kill, Launch, Order, Probe, Terminate
from supervisor.policy import admission, chronicle, launching, reconcile
from supervisor.policy.lifecycle import Step, next_due, step
from supervisor.policy.placement import ImpossibleGpus, Placement
from supervisor.record import By, ExitCause, OperatorRequest, Wanted, WorkerRecord, WorkerState, running
from supervisor.spec import DASHBOARD_NAME, DatasiteSpec, FleetConfig, WorkerSpec

log = logging.getLogger("fleet")


class Effects(Protocol):
    """What the engine can do to the world, and how it learns of it."""

    @property
    def cores(self) -> int: ...
    def now(self) -> float: ...
    def wait(self, timeout: float | None) -> list[Any]: ...
    def launch(self, spec: WorkerSpec, generation: int) -> None: ...
    def terminate(self, pid: int) -> None: ...
    def kill(self, pid: int) -> None: ...
    def probe(self, order: Probe, spec: WorkerSpec) -> None: ...
    def configure(self, order: Configure, spec: WorkerSpec) -> None: ...
    def abandon_launches(self) -> None: ...
    def watch(self, started: ProcessStarted | ProcessAdopted, spec: WorkerSpec) -> bool: ...
    def collect(self, exited: Exited) -> ExitCause: ...
    def clear(self, exited: Exited) -> None: ...
    def place(self, asked: ReloadAsked, running: Collection[str]) -> Placement: ...
    def use(self, config: FleetConfig, placement: Placement) -> None: ...
    def note(self, fact: Fact, made: Step, now: float) -> None: ...
    def tell(self, events: Iterable[Event]) -> None: ...
    def pin(self, config: FleetConfig, records: Mapping[str, WorkerRecord], *, stopping: bool) -> None: ...


class Engine:
    """``remembered``: records that a supervisor before this one left, for workers of ``config``."""

    def __init__(
        self, config: FleetConfig, effects: Effects, remembered: Mapping[str, WorkerRecord] | None = None
    ) -> None:
        self._config = config
        self._effects = effects
        self._stopping = False
        self._specs: dict[str, WorkerSpec] = {spec.name: spec for spec in config.workers}
        self._records = {name: WorkerRecord(name, config.rules(spec)) for name, spec in self._specs.items()}
        self._records |= remembered or {}
        self._held: list[admission.Held] = []
        self._ports: dict[str, int] = {}  # where each process was launched; a reload may move its spec away
        self._last_sent: float | None = None
        self._turn_due: float | None = None
        self._news = False  # something that a picture shows has changed since the last one

    def run(self, first: Iterable[Any]) -> None:
        """Take ``first`` (adoptions, start requests), then go on until the fleet was asked down and is."""
        for message in first:
            self._take(message, self._effects.now())
        self._admit(self._effects.now())
        self._pin()
        while not self._finished():
            self._turn()

    def _turn(self) -> None:
        for message in self._effects.wait(self._patience()):
            self._take(message, self._effects.now())
        self._take_deadlines(self._effects.now())
        self._let_dashboard_go()
        self._let_removed_go()
        self._admit(self._effects.now())
        if self._news:
            self._pin()

    def _finished(self) -> bool:
        return self._stopping and all(record.state is WorkerState.DOWN for record in self._records.values())

    def _patience(self) -> float | None:
        due = [at for record in self._records.values() if (at := next_due(record)) is not None]
        due += [self._turn_due] if self._turn_due is not None else []
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
            self._take_exit(message, now)
        elif isinstance(message, Signalled):
            self._take_signal(message.number, now)
        elif isinstance(message, FleetAsked | ReloadAsked | CardsLost | Event):
            self._take_word(message, now)
        elif message.name in self._records:
            self._take_fact(message, now)

    def _take_word(self, message: FleetAsked | ReloadAsked | CardsLost | Event, now: float) -> None:
        """What concerns the fleet as a whole."""
        match message:
            case FleetAsked():
                self._stop_all(now)
            case ReloadAsked():
                self._reload(message, now)
            case CardsLost():
                self._lose_cards(message, now)
            case Event():
                self._tell((message,))

    def _take_pulse(self, status: StatusDocument, now: float) -> None:
        record = self._records.get(status.factory_name)
        if record is not None and record.pid in (None, status.pid):
            self._apply(PulseReceived(record.name, status.generation, status), now)

    def _take_exit(self, exited: Exited, now: float) -> None:
        """Who looks on is told at once. Nothing is launched in its place, and none is said to be down, before all that
        the dead left is cleared away."""
        cause = self._effects.collect(exited)
        if exited.name in self._records:
            self._apply(ProcessExited(exited.name, exited.generation, cause), now)
            if self._records[exited.name].state is not WorkerState.DOWN:
                self._pin()
        self._effects.clear(exited)

    def _take_fact(self, fact: Fact, now: float) -> None:
        self._apply(fact, now)
        if isinstance(fact, ProcessStarted | ProcessAdopted):
            self._watch(fact, now)

    def _watch(self, fact: ProcessStarted | ProcessAdopted, now: float) -> None:
        if isinstance(fact, ProcessAdopted):
            self._ports[fact.name] = fact.port
        if not self._effects.watch(fact, self._specs[fact.name]):
            self._take(Exited(fact.name, fact.generation, fact.pid), now)

    def _take_signal(self, number: signal.Signals, now: float) -> None:
        if number not in (signal.SIGTERM, signal.SIGINT):
            return
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
        datasites = [name for name in self._records if name != DASHBOARD_NAME]
        log.info("stopping %d datasites", len(datasites))
        for name in datasites:
            self._apply(OperatorAsked(name, OperatorRequest.STOP, By.FLEET), now)
        self._let_dashboard_go()
        self._pin()

    def _let_dashboard_go(self) -> None:
        board = self._records.get(DASHBOARD_NAME)
        if not self._stopping or board is None or board.wanted is Wanted.DOWN:
            return
        if all(record.state is WorkerState.DOWN for name, record in self._records.items() if name != DASHBOARD_NAME):
            self._apply(OperatorAsked(DASHBOARD_NAME, OperatorRequest.STOP, By.FLEET), self._effects.now())

    def _kill_all(self) -> None:
        log.warning("asked twice: killing what is left")
        for record in self._records.values():
            if record.pid is not None:
                self._effects.kill(record.pid)

    # --- another fleet.yaml ---

    def _reload(self, asked: ReloadAsked, now: float) -> None:
        """Take up another configuration: only what differs is touched. One that cannot be had is refused whole."""
        placement = self._effects.place(asked, running(self._records.values()))
        config, plan = asked.config, reconcile.plan(self._config, asked.config, placement.moved)
        retold = launching.retold(self._config, config)
        if why := self._refusal(plan, placement):
            self._tell((Event(FLEET, EventKind.RELOAD_REFUSED, f"reload refused: {why}", warning=True),))
            return
        self._config = config
        self._effects.use(config, placement)
        self._specs |= {spec.name: spec for spec in config.workers}
        for name in plan.remove:
            self._apply(OperatorAsked(name, OperatorRequest.STOP, By.RELOAD, "no longer in fleet.yaml"), now)
        for name in (*plan.restart, *plan.live, *plan.unchanged):
            self._renew(name, plan, now, told=name in retold)
        for name in plan.add:
            self._records.setdefault(name, WorkerRecord(name, config.rules(self._specs[name])))
            self._renew(name, plan, now)  # one that was still on its way out may be back with other rules
            self._apply(OperatorAsked(name, OperatorRequest.START, By.RELOAD, "new in fleet.yaml"), now)
        self._tell((Event(FLEET, EventKind.RELOADED, f"reloaded: {reconcile.in_words(plan)}", cause=By.RELOAD.value),))
        self._pin()

    def _refusal(self, plan: reconcile.Plan, placement: Placement) -> str:
        if plan.refused:
            return f"{', '.join(plan.refused)} cannot change in a running fleet"
        if placement.problems:
            return str(ImpossibleGpus(placement.problems))
        return "it is going down" if self._stopping else ""

    def _renew(self, name: str, plan: reconcile.Plan, now: float, *, told: bool = False) -> None:
        """What a kept worker is told of a reload."""
        told = told or any(map(reconcile.is_told, plan.live.get(name, ())))
        rules = self._config.rules(self._specs[name])
        if told or rules != self._records[name].rules:
            self._apply(RulesChanged(name, rules, told), now)
        if name in plan.restart and self._records[name].wanted is Wanted.UP:
            why = f"{', '.join(plan.restart[name])} changed"
            self._apply(OperatorAsked(name, OperatorRequest.RESTART, By.RELOAD, why), now)

    def _lose_cards(self, lost: CardsLost, now: float) -> None:
        """Lines without their GPUs get others, or the CPU if they said ``auto``; who can have none stays as it is. Who
        waited for a driver gets its GPU at its next start."""
        if self._stopping:
            return
        made = self._effects.place(ReloadAsked(self._config, lost.cards), running(self._records.values()))
        stay = {name: lost.had[name] for name in made.problems if name in lost.had}
        self._effects.use(self._config, replace(made, assignments=made.assignments | stay))
        self._tell(_losses(lost, made, self._records))
        found = {name: made.assignments.get(name) for name in lost.waiting if name in self._records}
        self._tell(tuple(gpu_found(name, uuids) for name, uuids in found.items() if uuids))
        for name in made.moved:
            if name not in made.problems and self._records[name].wanted is Wanted.UP:
                self._apply(OperatorAsked(name, OperatorRequest.RESTART, By.GPU_LOST, "gpu"), now)

    def _let_removed_go(self) -> None:
        """A worker that is no longer in ``fleet.yaml`` is forgotten once it is down."""
        kept = {spec.name for spec in self._config.workers}
        for name in [name for name in self._records if name not in kept]:
            if self._records[name].state is WorkerState.DOWN:
                del self._records[name], self._specs[name]
                self._news = True

    # --- one worker ---

    def _apply(self, fact: Fact, now: float) -> None:
        before = self._records[fact.name]
        if isinstance(fact, ProcessExited | LaunchFailed) and fact.generation == before.generation:
            self._ports.pop(fact.name, None)
        made = step(before, fact, now)
        self._records[fact.name] = made.record
        self._news = self._news or _shows(before, made.record)
        self._effects.note(fact, made, now)
        self._tell(chronicle.tell(before, made.record, fact, now))
        for order in made.orders:
            self._carry_out(order)
        self._take_back(fact.name, now)

    def _tell(self, events: tuple[Event, ...]) -> None:
        for event in events:
            prefix = "" if event.name == FLEET else f"{event.name}: "
            log.log(logging.WARNING if event.warning else logging.INFO, "%s%s", prefix, event.text)
        if events:
            self._effects.tell(events)

    def _carry_out(self, order: Order) -> None:
        spec = self._specs[order.name]
        match order:
            case Launch():
                priority = spec.priority if isinstance(spec, DatasiteSpec) else _FIRST
                self._held.append(admission.Held(order.name, order.generation, spec.port, priority))
            case Terminate():
                self._effects.terminate(order.pid)
            case Kill():
                self._effects.kill(order.pid)
            case Probe():
                self._effects.probe(order, spec)
            case Configure():
                self._effects.configure(order, spec)
            case AbandonLaunch():
                self._effects.abandon_launches()

    # --- whose turn it is to start ---

    def _take_back(self, name: str, now: float) -> None:
        """A launch that still waits while its worker is to stop never happens; that counts as its end."""
        record = self._records[name]
        if record.state is WorkerState.STOPPING and any(held.name == name for held in self._held):
            self._held = [held for held in self._held if held.name != name]
            self._apply(LaunchFailed(name, record.generation, "taken back before it began"), now)

    def _admit(self, now: float) -> None:
        if not self._held:
            self._turn_due = None
            return
        starting = [r for r in self._records.values() if r.state is WorkerState.STARTING and r.started_at is not None]
        sent = [record.started_at for record in starting if record.started_at is not None]
        turn = admission.turn(
            self._held, sent, self._ports_but_own(), self._config.startup, self._effects.cores, now, self._last_sent
        )
        self._turn_due = turn.again
        for held in turn.go:
            self._send(held, now)

    def _ports_but_own(self) -> set[int]:
        return {port for name, port in self._ports.items() if name in self._records}

    def _send(self, held: admission.Held, now: float) -> None:
        self._held.remove(held)
        self._last_sent = now
        self._ports[held.name] = self._specs[held.name].port
        self._apply(LaunchSent(held.name, held.generation), now)
        self._effects.launch(self._specs[held.name], held.generation)

    def _pin(self) -> None:
        """Workers on their way out are still shown."""
        kept = {spec.name for spec in self._config.workers}
        leaving = [spec for name, spec in self._specs.items() if name not in kept and isinstance(spec, DatasiteSpec)]
        shown = replace(self._config, datasites=(*self._config.datasites, *leaving)) if leaving else self._config
        self._news = False
        self._effects.pin(shown, dict(self._records), stopping=self._stopping)


def gpu_found(name: str, uuids: tuple[str, ...]) -> Event:
    """What is told of a line on the CPU that has a GPU by now, and is not interrupted for it."""
    has = f"it has {', '.join(uuids)} from its next start on, until then it is on the CPU"
    return Event(name, EventKind.GPU_FOUND, f"the GPUs can be seen again: {has}", warning=True)


def _losses(lost: CardsLost, made: Placement, known: Collection[str]) -> tuple[Event, ...]:
    """What is told of each line that lost a GPU."""
    after = {name: f"now: {', '.join(uuids) or 'cpu'}" for name, uuids in made.assignments.items()} | made.problems
    return tuple(
        Event(
            name,
            EventKind.GPU_LOST,
            f"its GPU cannot be used any more, {why}; {after.get(name, '')}",
            cause=By.GPU_LOST.value,
            warning=True,
        )
        for name, why in lost.lost.items()
        if name in known
    )


def _shows(before: WorkerRecord, after: WorkerRecord) -> bool:
    """Whether a picture of ``after`` is another one. Most of what happens is a probe that went well."""
    if after is before:
        return False
    unseen: dict[str, Any] = {
        "readiness": after.readiness,
        "liveness": after.liveness,
        "probe_pending": after.probe_pending,
    }
    return replace(before, **unseen) != after


_FIRST = 1_000_000
"""The priority of the embedded dashboard: what registers there finds it sooner."""
