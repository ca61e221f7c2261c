"""What happened, as frozen values. Every fact names its worker and the generation of the process it is about."""

from __future__ import annotations

from dataclasses import dataclass

from fleet_common.contract import StatusDocument
from supervisor.record import By, ExitCause, OperatorRequest
from supervisor.spec import Rules


@dataclass(frozen=True, slots=True)
class LaunchSent:
    """The launch was sent: its time limit starts."""

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
    """The launch made no process."""

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
    """The worker reported its status."""

    name: str
    generation: int
    status: StatusDocument


@dataclass(frozen=True, slots=True)
class ProbeAnswered:
    """The result of one probe; ``status`` None means it failed, for ``reason``."""

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
    """About the worker, whatever its generation. ``why`` is for people, and may be empty."""

    name: str
    request: OperatorRequest
    by: By = By.OPERATOR
    why: str = ""


@dataclass(frozen=True, slots=True)
class RulesChanged:
    """A reload changed the rules. ``told``: the running worker has new settings to apply as well."""

    name: str
    rules: Rules
    told: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What one worker takes of what it may. Memory in bytes, CPU in percent of one core; a limit of 0 is none.

    ``…_looks``: for how many looks in a row it has been at its limit; ``cpu_calm``: for how many it has not been.
    ``kernel``: a control group holds its memory there; ``cpu_kernel``: its CPU. ``oom_kills``: processes of it that the
    kernel has ended since the last look, for want of memory; ``oom_limit``: which limit that was.
    ``of_host``: the figures are those of all datasites together, of which this is the largest.
    """

    memory: int = 0
    memory_limit: int = 0
    memory_looks: int = 0
    cpu: float = 0.0
    cpu_limit: float = 0.0
    cpu_looks: int = 0
    cpu_calm: int = 0
    kernel: bool = False
    cpu_kernel: bool = False
    oom_kills: int = 0
    oom_limit: str = ""
    of_host: bool = False


@dataclass(frozen=True, slots=True)
class LoadSeen:
    """Sent while a worker is near a limit or at it, and once when it no longer is."""

    name: str
    generation: int
    load: Load


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
    | LoadSeen
)
