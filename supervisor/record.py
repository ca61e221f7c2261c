"""What is known of one worker: a frozen value. Only ``policy.lifecycle.step`` makes new ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from fleet_common.contract import StatusDocument
from supervisor.spec import Rules


class WorkerState(StrEnum):
    DOWN = "down"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    QUARANTINED = "quarantined"


class Wanted(StrEnum):
    """What the operator wants, which is separate from the state."""

    UP = "up"
    DOWN = "down"


class OperatorRequest(StrEnum):
    START = "start"
    STOP = "stop"
    RESTART = "restart"


class By(StrEnum):
    """Who made a request. ``BY_WORDS`` has the words for people."""

    FLEET = "fleet"  # the whole fleet starts or stops
    OPERATOR = "operator"
    RELOAD = "reload"
    GPU_LOST = "gpu_lost"
    ADOPTION = "adoption"  # an adopted process does not match fleet.yaml any more


BY_WORDS = {
    By.FLEET: "with the fleet",
    By.OPERATOR: "by the operator",
    By.RELOAD: "by a reload",
    By.GPU_LOST: "after the loss of a GPU",
    By.ADOPTION: "after adoption",
}


class ExitKind(StrEnum):
    """The kinds of exits that policy distinguishes."""

    CLEAN = "clean"  # exit code 0
    FAILURE = "failure"  # any other exit code
    CONFIGURATION = "configuration"  # the worker reported a failure that a retry cannot correct
    NO_SPACE = "no_space"  # a disk is full: no crash, and it is tried again until there is space
    SIGNAL = "signal"  # killed by a signal that we did not send
    OOM = "oom"  # killed by the kernel because memory ran out
    HUNG = "hung"  # killed by us: it did not start in time, or no longer answered
    MEMORY_LIMIT = "memory_limit"  # stopped by us: it used more memory than its limit
    UNKNOWN = "unknown"  # ended while no supervisor was running
    LAUNCH = "launch"  # the launch made no process


@dataclass(frozen=True, slots=True)
class ExitCause:
    """How a process ended. ``detail`` is for people: ``SIGKILL``, ``exit code 70``, ``port 8080 is taken by …``."""

    kind: ExitKind
    detail: str
    code: int | None = None  # negative: the number of the signal
    signal: str | None = None  # its name

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class Check:
    """One kind of probe: when it is due, and how its last answers went. Consecutive counts, as the kubelet's."""

    due: float = 0.0
    failures: int = 0
    successes: int = 0


@dataclass(frozen=True, slots=True)
class Pressure:
    """Limits that the present process is near to, and those it has reached: by name, each in words for people."""

    near: dict[str, str] = field(default_factory=dict)
    reached: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """All times are readings of the monotonic clock, in seconds; ``deadline`` None means nothing is due."""

    name: str
    rules: Rules = Rules()
    state: WorkerState = WorkerState.DOWN
    wanted: Wanted = Wanted.DOWN
    generation: int = 0
    pid: int | None = None
    created: int | None = None  # the process's start time; with the pid, its identity
    since: float = 0.0  # when ``state`` began
    started_at: float | None = None  # when the launch of the present process was sent
    born_at: float | None = None  # when the present process began, which is later: a forkserver may still be importing
    ready_since: float | None = None  # when the present process was first ready
    deadline: float | None = None  # what is due then depends on ``state``
    restarts: int = 0  # by crash or by the supervisor, never by the operator
    restarts_by_cause: dict[str, int] = field(default_factory=dict)
    crashes: tuple[float, ...] = ()  # crashes since the last stable running, for back-off and crash-loop detection
    readiness: Check = Check()
    liveness: Check = Check()
    probe_pending: bool = False
    silent_since: float | None = None  # when the first of the probes failed that have failed in a row
    silence: str = ""  # how the last of them failed
    restart_asked: bool = False  # a start follows the stop in progress
    asked_by: By | None = None  # who requested the last stop or start; None: it crashed
    asked: str = ""  # the same as a sentence for people
    settings_due: bool = False  # settings changed since its launch; it gets them once it is ready
    killed_for: str = ""  # why we kill the present process without a request
    killed_kind: ExitKind = ExitKind.HUNG  # and the kind of that exit
    pressure: Pressure = Pressure()
    limit_ends: tuple[float, ...] = ()  # when it was stopped for its memory limit, within the last hour
    last_exit: ExitCause | None = None
    reason: str = ""  # why the state is what it is, for people
    status: StatusDocument | None = None  # the last status of the present process


_AT_REST = (WorkerState.DOWN, WorkerState.BACKOFF, WorkerState.QUARANTINED)


def running(records: Iterable[WorkerRecord]) -> tuple[str, ...]:
    """The names of those that have a process, or are about to get one."""
    return tuple(record.name for record in records if record.state not in _AT_REST)
