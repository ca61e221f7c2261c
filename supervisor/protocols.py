"""What the engine needs of the world: one small protocol for each use. There is no code here.

``effects.machine.Machine`` implements all of them, and so does the fake world of the tests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from supervisor.facts import ProcessAdopted, ProcessStarted
from supervisor.history import Event
from supervisor.messages import Exited, Message, ReloadAsked
from supervisor.orders import Configure, Probe
from supervisor.policy.fleet import FleetMessage, Outcome
from supervisor.policy.placement import Placement
from supervisor.record import ExitCause, WorkerRecord
from supervisor.spec import FleetConfig, WorkerSpec


class Waiting(Protocol):
    """For the loop: what time it is, and what happens next."""

    def now(self) -> float: ...
    def wait(self, timeout: float | None) -> list[Message]: ...


class Hands(Protocol):
    """For orders: what can be done to processes."""

    def launch(self, spec: WorkerSpec, generation: int) -> None: ...
    def terminate(self, pid: int) -> None: ...
    def kill(self, pid: int) -> None: ...
    def probe(self, order: Probe, spec: WorkerSpec) -> None: ...
    def configure(self, order: Configure, spec: WorkerSpec) -> None: ...
    def abandon_launches(self) -> None: ...


class Processes(Protocol):
    """For the start and the exit of a process. ``watch``: False when it has ended already."""

    def watch(self, started: ProcessStarted | ProcessAdopted, spec: WorkerSpec) -> bool: ...
    def collect(self, exited: Exited) -> ExitCause: ...
    def clear(self, exited: Exited) -> None: ...


class Placing(Protocol):
    """For a reload and the loss of a GPU: what the host has, and the switch to another configuration."""

    @property
    def cores(self) -> int: ...
    def place(self, reload: ReloadAsked, running: Collection[str]) -> Placement: ...
    def use(self, config: FleetConfig, placement: Placement) -> None: ...


class Account(Protocol):
    """For observers: the journal, events, and the snapshot of now."""

    def note(self, message: FleetMessage, outcome: Outcome, now: float) -> None: ...
    def tell(self, events: Iterable[Event]) -> None: ...
    def pin(self, config: FleetConfig, records: Mapping[str, WorkerRecord], *, stopping: bool) -> None: ...


class Effects(Waiting, Hands, Processes, Placing, Account, Protocol):
    """All of them."""
