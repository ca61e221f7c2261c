"""The one loop: wait, ``advance``, carry out. Only here policy meets effects; nothing is decided here.

It holds the state of the fleet and its configuration. The world is behind ``protocols``, so that a test can play a
scripted history through the same loop.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from supervisor.facts import ProcessAdopted, ProcessExited, ProcessStarted
from supervisor.history import FLEET, Event
from supervisor.messages import CardsLost, Exited, Message, ReloadAsked, Signalled
from supervisor.orders import AbandonLaunch, Configure, Kill, Launch, Order, Probe, Terminate
from supervisor.policy import fleet
from supervisor.policy.fleet import FleetMessage, FleetState, GpuLoss, Outcome, Tick
from supervisor.policy.placement import Placement
from supervisor.protocols import Effects, Hands
from supervisor.record import WorkerRecord, WorkerState, running
from supervisor.spec import DASHBOARD_NAME, DatasiteSpec, FleetConfig, WorkerSpec

log = logging.getLogger("fleet")


class Engine:
    """``remembered``: records that an earlier supervisor left, for workers of ``config``."""

    def __init__(
        self, config: FleetConfig, effects: Effects, remembered: Mapping[str, WorkerRecord] | None = None
    ) -> None:
        self._config = config
        self._effects = effects
        self._specs: dict[str, WorkerSpec] = {
            spec.name: spec for spec in config.workers
        }  # also those that are stopping
        self._state = self._pinned = fleet.begin(config, remembered)

    def run(self, first: Iterable[Message]) -> None:
        """Take ``first`` (adoptions, start requests), then run until the fleet was told to stop, and has stopped."""
        for message in first:
            self._take(message)
        self._advance(Tick(self._effects.cores))
        self._pin()
        while not fleet.is_down(self._state):
            self._turn()

    def _turn(self) -> None:
        due = fleet.next_due(self._state)
        for message in self._effects.wait(None if due is None else max(0.0, due - self._effects.now())):
            self._take(message)
        self._advance(Tick(self._effects.cores))
        if fleet.shows(self._pinned, self._state):
            self._pin()

    def _take(self, message: Message) -> None:
        """Some messages need effects before policy can use them; all others go to policy as they are."""
        match message:
            case Exited():
                self._take_exit(message)
            case ProcessStarted() | ProcessAdopted():
                self._take_process(message)
            case ReloadAsked():
                placement = self._effects.place(message, running(self._state.records.values()))
                self._advance(fleet.reload_of(self._config, message.config, placement), message.config)
            case CardsLost():
                reload = ReloadAsked(self._config, message.cards)
                placement = self._effects.place(reload, running(self._state.records.values()))
                self._advance(GpuLoss(message, placement))
            case Event():
                self._tell((message,))
            case _:
                self._advance(message)

    def _take_exit(self, exited: Exited) -> None:
        """Displays see the exit at once. The worker is launched again, or shown as down, only when all that the dead
        process left is removed."""
        cause = self._effects.collect(exited)
        self._advance(ProcessExited(exited.name, exited.generation, cause))
        record = self._state.records.get(exited.name)
        if record is not None and record.state is not WorkerState.DOWN:
            self._pin()
        self._effects.clear(exited)

    def _take_process(self, fact: ProcessStarted | ProcessAdopted) -> None:
        self._advance(fact)
        if fact.name in self._specs and not self._effects.watch(fact, self._specs[fact.name]):
            self._take(Exited(fact.name, fact.generation, fact.pid))

    def _advance(self, message: FleetMessage, config: FleetConfig | None = None) -> None:
        """``config``: the one that a reload asks for."""
        now, before = self._effects.now(), self._state
        outcome = fleet.advance(before, message, now)
        self._state = outcome.state
        _log_stop(message, before, outcome.state)
        if outcome.placement is not None:
            self._take_up(config or self._config, outcome.placement)
        self._effects.note(message, outcome, now)
        self._carry_out(outcome)
        if outcome.placement is not None or outcome.state.stopping is not before.stopping:
            self._pin()

    def _take_up(self, config: FleetConfig, placement: Placement) -> None:
        self._config = config
        self._specs |= {spec.name: spec for spec in config.workers}
        self._effects.use(config, placement)

    def _carry_out(self, outcome: Outcome) -> None:
        self._tell(outcome.events)
        for order in outcome.orders:
            carry_out(order, self._specs[order.name], self._effects)

    def _tell(self, events: tuple[Event, ...]) -> None:
        for event in events:
            prefix = "" if event.name == FLEET else f"{event.name}: "
            log.log(logging.WARNING if event.warning else logging.INFO, "%s%s", prefix, event.text)
        if events:
            self._effects.tell(events)

    def _pin(self) -> None:
        """Workers that are still stopping are shown too."""
        records, listed = self._state.records, self._state.listed
        self._specs = {name: spec for name, spec in self._specs.items() if name in records}
        leaving = [spec for spec in self._specs.values() if spec.name not in listed and isinstance(spec, DatasiteSpec)]
        shown = replace(self._config, datasites=(*self._config.datasites, *leaving)) if leaving else self._config
        self._pinned = self._state
        self._effects.pin(shown, dict(records), stopping=self._state.stopping)


def carry_out(order: Order, spec: WorkerSpec, hands: Hands) -> None:
    match order:
        case Launch():
            hands.launch(spec, order.generation)
        case Terminate():
            hands.terminate(order.pid)
        case Kill():
            hands.kill(order.pid)
        case Probe():
            hands.probe(order, spec)
        case Configure():
            hands.configure(order, spec)
        case AbandonLaunch():
            hands.abandon_launches()
        case _:
            assert_never(order)


def _log_stop(message: FleetMessage, before: FleetState, after: FleetState) -> None:
    if isinstance(message, Signalled) and message.name in fleet.STOP_SIGNALS:
        log.info("%s received", message.name)
        if before.stopping:
            log.warning("second signal received: killing the remaining processes")
    if after.stopping and not before.stopping:
        log.info("stopping %d datasites", len(after.records.keys() - {DASHBOARD_NAME}))
