"""Decisions about the fleet as a whole: ``advance(state, message, now) -> Outcome``. Pure.

The order of a stop, a reload and its refusal, what follows the loss of a GPU, which launch is next. ``lifecycle.step``
decides about one worker; this hands it the facts that follow from messages to the fleet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from fleet_common.contract import StatusDocument
from supervisor.facts import (
    DeadlineReached,
    Fact,
    LaunchFailed,
    LaunchSent,
    OperatorAsked,
    ProcessAdopted,
    ProcessExited,
    PulseReceived,
    RulesChanged,
)
from supervisor.history import FLEET, Event, EventKind
from supervisor.messages import CardsLost, DownAsked, Signalled
from supervisor.orders import Kill, Launch, Order
from supervisor.policy import admission, chronicle, launching, lifecycle, reconcile
from supervisor.policy.lifecycle import Step, step
from supervisor.policy.placement import ImpossibleGpus, Placement
from supervisor.record import By, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import DASHBOARD_NAME, DatasiteSpec, FleetConfig, Rules, StartupPolicy, WorkerSpec

DASHBOARD_PRIORITY = 1_000_000
"""The embedded dashboard starts first, so that datasites can register at once."""
STOP_SIGNALS = ("SIGTERM", "SIGINT")


@dataclass(frozen=True, slots=True)
class Member:
    """The part of a worker's spec that this needs. It contains no secrets, as the journal stores it."""

    port: int
    priority: int
    rules: Rules


@dataclass(frozen=True, slots=True)
class FleetState:
    """``members`` and ``records`` also hold workers that a reload removed, until they are down; ``listed`` does not.

    ``ports``: where each process was launched, as a reload may move its spec away. ``queue``: launches that wait for
    their turn. ``turn_due``: when to ask for a turn again if nothing happens before. Times are monotonic seconds.
    """

    members: Mapping[str, Member]
    listed: frozenset[str]
    records: Mapping[str, WorkerRecord]
    startup: StartupPolicy
    ports: Mapping[str, int] = field(default_factory=dict)
    queue: tuple[admission.QueuedLaunch, ...] = ()
    last_sent: float | None = None
    turn_due: float | None = None
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Reload:
    """Another configuration to apply, and how it differs from the present one.

    ``told``: who gets new settings without a restart, for its own keys or for limits of the host.
    """

    members: dict[str, Member]
    startup: StartupPolicy
    plan: reconcile.Plan
    placement: Placement
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GpuLoss:
    """GPUs are missing, or visible again; ``placement``: where the datasites would go."""

    losses: CardsLost
    placement: Placement


@dataclass(frozen=True, slots=True)
class Tick:
    """All messages are handled: now do what is due. ``cores``: how many may be used."""

    cores: int


FleetMessage = Fact | StatusDocument | Signalled | DownAsked | Reload | GpuLoss | Tick


@dataclass(frozen=True, slots=True)
class Outcome:
    """``steps``: the facts that follow from the message, each with the result of ``step``, in their order.
    ``placement``: who has which GPU from now on, in the configuration of the message; None: neither has changed.

    ``placement``: who has which GPU from now on, in the configuration of the message; None: neither has changed.
    """

    state: FleetState
    orders: tuple[Order, ...] = ()
    events: tuple[Event, ...] = ()
    steps: tuple[tuple[Fact, Step], ...] = ()
    placement: Placement | None = None


def begin(config: FleetConfig, remembered: Mapping[str, WorkerRecord] | None = None) -> FleetState:
    """``remembered``: records that an earlier supervisor left, for workers of ``config``."""
    known = {spec.name: _member(config, spec) for spec in config.workers}
    records = {name: WorkerRecord(name, member.rules) for name, member in known.items()}
    return FleetState(known, frozenset(known), records | dict(remembered or {}), config.startup)


def reload_of(old: FleetConfig, new: FleetConfig, placement: Placement) -> Reload:
    """The reload that applies ``new``."""
    changes = reconcile.plan(old, new, placement.moved)
    known = {spec.name: _member(new, spec) for spec in new.workers}
    handed = {name for name, keys in changes.live.items() if _any_handed_over(new.worker(name), keys)}
    return Reload(known, new.startup, changes, placement, tuple(sorted(handed | launching.retold(old, new))))


def _any_handed_over(spec: WorkerSpec, keys: Iterable[str]) -> bool:
    return any(reconcile.is_handed_over(spec, key) for key in keys)


def _member(config: FleetConfig, spec: WorkerSpec) -> Member:
    priority = spec.priority if isinstance(spec, DatasiteSpec) else DASHBOARD_PRIORITY
    return Member(spec.port, priority, config.rules(spec))


def advance(state: FleetState, message: FleetMessage, now: float) -> Outcome:
    """The next state of the fleet, and what to do, after ``message``. A message about an unknown worker changes
    nothing.

    What speaks of a worker that is not known (any more) changes nothing.
    """
    move = _Move(state, now)
    move.take(message)
    return Outcome(move.state, tuple(move.orders), tuple(move.events), tuple(move.steps), move.placement)


def next_due(state: FleetState) -> float | None:
    """When the fleet next needs a ``Tick``; None: only after something happens."""
    due = [at for record in state.records.values() if (at := lifecycle.next_due(record)) is not None]
    due += [state.turn_due] if state.turn_due is not None else []
    return min(due, default=None)


def is_down(state: FleetState) -> bool:
    """Whether the fleet was told to stop, and has stopped."""
    return state.stopping and all(record.state is WorkerState.DOWN for record in state.records.values())


def shows(before: FleetState, after: FleetState) -> bool:
    """Whether a snapshot of ``after`` differs. Most messages are successful probes."""
    if before.stopping is not after.stopping or before.records.keys() != after.records.keys():
        return True
    return any(_shows(before.records[name], record) for name, record in after.records.items())


def _shows(before: WorkerRecord, after: WorkerRecord) -> bool:
    if after is before:
        return False
    unseen: dict[str, Any] = {
        "readiness": after.readiness,
        "liveness": after.liveness,
        "probe_pending": after.probe_pending,
    }
    return replace(before, **unseen) != after


class _Move:
    """One ``advance`` in progress: the state so far, and what follows from the message."""

    def __init__(self, state: FleetState, now: float) -> None:
        self.state = state
        self.orders: list[Order] = []
        self.events: list[Event] = []
        self.steps: list[tuple[Fact, Step]] = []
        self.placement: Placement | None = None
        self._now = now

    def take(self, message: FleetMessage) -> None:
        if isinstance(message, Fact):
            self._take_fact(message)
            return
        match message:
            case StatusDocument():
                self._hear(message)
            case Signalled():
                self._take_signal(message)
            case DownAsked():
                self._stop_all()
            case Reload():
                self._reload(message)
            case GpuLoss():
                self._lose_gpus(message)
            case Tick():
                self._tick(message)
            case _:
                assert_never(message)

    def _take_fact(self, fact: Fact) -> None:
        if fact.name in self.state.records:
            self._apply(fact)

    def _hear(self, status: StatusDocument) -> None:
        record = self.state.records.get(status.factory_name)
        if record is not None and record.pid in (None, status.pid):
            self._apply(PulseReceived(record.name, status.generation, status))

    def _tick(self, tick: Tick) -> None:
        for name, record in self.state.records.items():
            due = lifecycle.next_due(record)
            if due is not None and due <= self._now:
                self._apply(DeadlineReached(name, record.generation))
        self._let_dashboard_go()
        self._let_removed_go()
        self._admit(tick.cores)

    # --- one worker ---

    def _apply(self, fact: Fact) -> None:
        before = self.state.records[fact.name]
        result = step(before, fact, self._now)
        self.steps.append((fact, result))
        self.events += chronicle.tell(before, result.record, fact, self._now)
        self.state = replace(self.state, records={**self.state.records, fact.name: result.record})
        self._note_launch(fact, before)
        for order in result.orders:
            self._order(order)
        self._take_back(result.record)

    def _note_launch(self, fact: Fact, before: WorkerRecord) -> None:
        """A port is in use from the launch until the process has ended, even if a reload moves its spec meanwhile."""
        name, ports = fact.name, self.state.ports
        match fact:
            case LaunchSent():
                self._unqueue(name)
                self.state = replace(self.state, last_sent=self._now)
                ports = {**ports, name: self.state.members[name].port}
            case ProcessAdopted():
                ports = {**ports, name: fact.port}
            case ProcessExited() | LaunchFailed() if fact.generation == before.generation:
                ports = {other: port for other, port in ports.items() if other != name}
            case _:
                return
        self.state = replace(self.state, ports=ports)

    def _order(self, order: Order) -> None:
        """A launch waits for its turn, and replaces an older one of the same worker that still waits."""
        if not isinstance(order, Launch):
            self.orders.append(order)
            return
        self._unqueue(order.name)
        member = self.state.members[order.name]
        queued = admission.QueuedLaunch(order.name, order.generation, member.port, member.priority)
        self.state = replace(self.state, queue=(*self.state.queue, queued))

    def _take_back(self, record: WorkerRecord) -> None:
        """A launch that still waits when its worker is to stop never happens; that counts as its exit."""
        if record.state is WorkerState.STOPPING and self._unqueue(record.name):
            self._apply(LaunchFailed(record.name, record.generation, "cancelled before it started"))

    def _unqueue(self, name: str) -> bool:
        """Whether its launch waited."""
        left = tuple(queued for queued in self.state.queue if queued.name != name)
        waited = len(left) < len(self.state.queue)
        self.state = replace(self.state, queue=left)
        return waited

    # --- which launch is next ---

    def _admit(self, cores: int) -> None:
        state = self.state
        if not state.queue:
            self.state = replace(state, turn_due=None)
            return
        sent = [at for record in state.records.values() if (at := _started(record)) is not None]
        ports = set(state.ports.values())
        turn = admission.turn(state.queue, sent, ports, state.startup, cores, self._now, state.last_sent)
        self.state = replace(state, turn_due=turn.again)
        for queued in turn.go:
            self._apply(LaunchSent(queued.name, queued.generation))
            self.orders.append(Launch(queued.name, queued.generation))

    # --- the fleet goes down ---

    def _take_signal(self, message: Signalled) -> None:
        """The first stops the fleet in order; the second kills the remaining processes."""
        if message.name not in STOP_SIGNALS:
            return
        if not self.state.stopping:
            self._stop_all()
            return
        for record in self.state.records.values():
            if record.pid is not None:
                self.orders.append(Kill(record.name, record.generation, record.pid))

    def _stop_all(self) -> None:
        """The datasites first, so that their last heartbeats still reach the embedded dashboard."""
        if self.state.stopping:
            return
        self._let_removed_go()
        self.state = replace(self.state, stopping=True)
        for name in self.state.records:
            if name != DASHBOARD_NAME:
                self._apply(OperatorAsked(name, OperatorRequest.STOP, By.FLEET))
        self._let_dashboard_go()

    def _let_dashboard_go(self) -> None:
        board = self.state.records.get(DASHBOARD_NAME)
        if not self.state.stopping or board is None or board.wanted is Wanted.DOWN:
            return
        others = [record for name, record in self.state.records.items() if name != DASHBOARD_NAME]
        if all(record.state is WorkerState.DOWN for record in others):
            self._apply(OperatorAsked(DASHBOARD_NAME, OperatorRequest.STOP, By.FLEET))

    # --- another fleet.yaml ---

    def _reload(self, reload: Reload) -> None:
        """Changes only what differs. Refuses the whole configuration if a part of it is impossible."""
        if why := self._refusal(reload):
            self.events.append(Event(FLEET, EventKind.RELOAD_REFUSED, f"reload refused: {why}", warning=True))
            return
        self._let_removed_go()
        self._take_up(reload)
        plan = reload.plan
        for name in plan.remove:
            self._apply(OperatorAsked(name, OperatorRequest.STOP, By.RELOAD, "no longer in fleet.yaml"))
        for name in (*plan.restart, *plan.live, *plan.unchanged):
            self._renew(name, reload)
        for name in plan.add:
            self._add(name, reload)
        text = f"reloaded: {reconcile.in_words(plan)}"
        self.events.append(Event(FLEET, EventKind.RELOADED, text, cause=By.RELOAD.value))

    def _refusal(self, reload: Reload) -> str:
        if reload.plan.refused:
            return f"{', '.join(reload.plan.refused)} cannot change while the fleet runs"
        if reload.placement.problems:
            return str(ImpossibleGpus(reload.placement.problems))
        return "the fleet is stopping" if self.state.stopping else ""

    def _take_up(self, reload: Reload) -> None:
        self.placement = reload.placement
        self.state = replace(
            self.state,
            members={**self.state.members, **reload.members},
            listed=frozenset(reload.members),
            startup=reload.startup,
        )

    def _renew(self, name: str, reload: Reload) -> None:
        """What a reload changes for a worker that stays."""
        plan, record, rules = reload.plan, self.state.records[name], reload.members[name].rules
        has_settings = name in reload.told
        if has_settings or rules != record.rules:
            self._apply(RulesChanged(name, rules, has_settings))
        if name in plan.restart and self.state.records[name].wanted is Wanted.UP:
            why = f"{', '.join(plan.restart[name])} changed"
            self._apply(OperatorAsked(name, OperatorRequest.RESTART, By.RELOAD, why))

    def _add(self, name: str, reload: Reload) -> None:
        """It may still be stopping, and come back with other rules."""
        rules = reload.members[name].rules
        known = self.state.records.get(name)
        if known is None:
            self.state = replace(self.state, records={**self.state.records, name: WorkerRecord(name, rules)})
        elif known.rules != rules:
            self._apply(RulesChanged(name, rules))
        self._apply(OperatorAsked(name, OperatorRequest.START, By.RELOAD, "new in fleet.yaml"))

    def _let_removed_go(self) -> None:
        """A worker that is no longer in ``fleet.yaml`` is forgotten once it is down."""
        state = self.state
        down = {name for name, record in state.records.items() if record.state is WorkerState.DOWN}
        gone = down - state.listed
        if gone:
            self.state = replace(
                state,
                members=_without(state.members, gone),
                records=_without(state.records, gone),
                ports=_without(state.ports, gone),
            )

    # --- GPUs ---

    def _lose_gpus(self, loss: GpuLoss) -> None:
        """Datasites without their GPUs get others, or the CPU if they say ``auto``; one that can have none stays as it
        is. One that waited for a driver gets its GPU at its next start."""
        if self.state.stopping:
            return
        lost, placement, known = loss.losses, loss.placement, self.state.records
        stay = {name: lost.had[name] for name in placement.problems if name in lost.had}
        self.placement = replace(placement, assignments=placement.assignments | stay)
        self.events += [event for event in _losses(lost, placement) if event.name in known]
        found = {name: uuids for name in lost.waiting if name in known and (uuids := placement.assignments.get(name))}
        self.events += [gpu_found(name, uuids) for name, uuids in found.items()]
        for name in placement.moved:
            if name not in placement.problems and self.state.records[name].wanted is Wanted.UP:
                self._apply(OperatorAsked(name, OperatorRequest.RESTART, By.GPU_LOST, "gpu"))


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _started(record: WorkerRecord) -> float | None:
    """When a worker that is still starting was launched."""
    return record.started_at if record.state is WorkerState.STARTING else None


def gpu_found(name: str, uuids: tuple[str, ...]) -> Event:
    """The event for a datasite on the CPU that has a GPU by now, and is not interrupted for it."""
    has = f"it gets {', '.join(uuids)} at its next start, and uses the CPU until then"
    return Event(name, EventKind.GPU_FOUND, f"the GPUs are visible again: {has}", warning=True)


def _losses(lost: CardsLost, placement: Placement) -> Iterator[Event]:
    """One event for each datasite that lost a GPU."""
    after = {
        name: f"it now uses {', '.join(uuids) or 'the CPU'}" for name, uuids in placement.assignments.items()
    } | placement.problems
    for name, why in lost.lost.items():
        text = f"its GPU is no longer usable ({why}); {after.get(name, '')}"
        yield Event(name, EventKind.GPU_LOST, text, cause=By.GPU_LOST.value, warning=True)
