"""What happened, as frozen values. Every fact names its worker and the generation of the process it speaks of."""

from __future__ import annotations

from dataclasses import dataclass

from datasite_worker.contract import StatusDocument
from supervisor.record import By, ExitCause, OperatorRequest
from supervisor.spec import Rules


@dataclass(frozen=True, slots=True)
class LaunchSent:
    """The launch had its turn: its time begins to count."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The kernel has a process for our launch.

    ``created`` is its start time in clock ticks since boot: with the pid, its identity.
    """

    name: str
    generation: int
    pid: int
    created: int


@dataclass(frozen=True, slots=True)
class ProcessAdopted:
    """A process of an earlier supervisor was found alive and is ours now.

    ``age``: seconds since it began; ``port``: the one it was launched for.
    """

    name: str
    generation: int
    pid: int
    created: int
    age: float
    port: int = 0


@dataclass(frozen=True, slots=True)
class LaunchFailed:
    """No process came of our launch."""

    name: str
    generation: int
    reason: str


@dataclass(frozen=True, slots=True)
class ProcessExited:
    name: str
    generation: int
    cause: ExitCause


@dataclass(frozen=True, slots=True)
class PulseReceived:
    """The worker spoke by itself."""

    name: str
    generation: int
    status: StatusDocument


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """One probe's outcome; ``status`` None means it failed, for ``reason``."""

    name: str
    generation: int
    status: StatusDocument | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeadlineReached:
    """The record's own deadline has passed."""

    name: str
    generation: int


@dataclass(frozen=True, slots=True)
class OperatorAsked:
    """Speaks of the worker, whatever its generation. ``why`` is for people, and may be empty."""

    name: str
    request: OperatorRequest
    by: By = By.OPERATOR
    why: str = ""


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """A reload brought other rules. ``told``: the running worker has settings to take up as well."""

    name: str
    rules: Rules
    told: bool = False


Fact = (
    LaunchSent
    | ProcessStarted
    | ProcessAdopted
    | LaunchFailed
    | ProcessExited
    | PulseReceived
    | ProbeAnswered
    | DeadlineReached
    | OperatorAsked
    | RulesChanged
)
