"""``FleetSnapshot``: what table, ``--json`` and web page all show. Its JSON shape is a promise.

A snapshot contains only facts that were true when it was taken; what is not known is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fleet_common.contract import DatasetSaid
from supervisor.record import Pressure, WorkerRecord, WorkerState
from supervisor.spec import DatasiteSpec, FleetConfig, WorkerSpec


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """One supervised process. Times: seconds or ISO 8601; memory: proportional set size in MiB."""

    name: str
    state: str
    wanted: str
    ready: bool
    pid: int | None
    port: int
    url: str
    device: str | None
    uptime_s: float | None
    restarts: int
    restarts_by_cause: dict[str, int]
    last_exit: str | None
    reason: str
    registered: bool | None
    registration: str
    dashboard_url: str
    last_heartbeat: str | None
    heartbeat_error: str
    cpu_percent: float | None
    memory_mb: float | None
    generation: int
    since_s: float  # how long the state has held
    next_attempt_s: float | None  # until the next start, while in backoff or quarantined
    log: str
    active_experiments: list[str] = field(default_factory=list)  # user code that runs now
    last_training_completion: str | None = None
    interrupted_jobs: list[str] = field(default_factory=list)  # interrupted when the process before this one ended
    datasets: list[DatasetSaid] = field(default_factory=list)
    limits: dict[str, float] = field(default_factory=dict)  # those of fleet.yaml that are not 0, under its names
    enforced: str = "no"  # who enforces memory and CPU: cgroup, watch (fleet itself), or no (no limit)
    limited: dict[str, str] = field(default_factory=dict)  # limits that are reached now, in words
    near_limits: dict[str, str] = field(default_factory=dict)  # those that are near
    not_answering_s: float | None = None  # for how long each probe has failed; None: the last one was answered
    not_answering: str = ""  # how the last one failed


@dataclass(frozen=True, slots=True)
class HostSnapshot:
    """The limits of all datasites together, in the same form as those of one."""

    limits: dict[str, float] = field(default_factory=dict)
    enforced: str = "no"
    limited: dict[str, str] = field(default_factory=dict)
    near_limits: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    fleet: str
    config: str
    version: str
    supervisor_pid: int
    supervisor_uptime_s: float
    stopping: bool
    taken_at: str  # ISO 8601 with offset
    revision: int  # grows with every change of state
    datasites: tuple[WorkerSnapshot, ...]
    dashboard: WorkerSnapshot | None = None
    host: HostSnapshot = HostSnapshot()

    def to_dict(self) -> dict[str, Any]:
        """The stable shape of ``fleet status --json``."""
        return {
            "fleet": self.fleet,
            "config": self.config,
            "version": self.version,
            "supervisor": {"pid": self.supervisor_pid, "uptime_s": self.supervisor_uptime_s, "stopping": self.stopping},
            "taken_at": self.taken_at,
            "revision": self.revision,
            "host": asdict(self.host),
            "dashboard": asdict(self.dashboard) if self.dashboard else None,
            "datasites": [asdict(datasite) for datasite in self.datasites],
        }


def from_dict(document: dict[str, Any]) -> FleetSnapshot:
    """The snapshot of a ``to_dict`` document. Raises KeyError or TypeError for anything else."""
    return FleetSnapshot(
        fleet=document["fleet"],
        config=document["config"],
        version=document["version"],
        supervisor_pid=document["supervisor"]["pid"],
        supervisor_uptime_s=document["supervisor"]["uptime_s"],
        stopping=document["supervisor"]["stopping"],
        taken_at=document["taken_at"],
        revision=document["revision"],
        dashboard=WorkerSnapshot(**document["dashboard"]) if document["dashboard"] else None,
        datasites=tuple(WorkerSnapshot(**datasite) for datasite in document["datasites"]),
        host=HostSnapshot(**document.get("host", {})),
    )


@dataclass(frozen=True, slots=True)
class Measure:
    """Measured by the kernel: share of one core in percent, proportional set size in MiB."""

    cpu_percent: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class SupervisorFacts:
    """What a snapshot says about the supervisor. ``started_at`` is a reading of the monotonic clock."""

    pid: int
    version: str
    started_at: float
    stopping: bool
    revision: int
    held: frozenset[str] = frozenset()  # which limits control groups enforce: memory, cpu
    held_otherwise: Mapping[str, frozenset[str]] = field(default_factory=dict)  # the same for datasites that differ
    host: Pressure = field(default_factory=Pressure)  # limits that all datasites together are near, or have reached


def take(
    config: FleetConfig,
    records: Mapping[str, WorkerRecord],
    measures: Mapping[str, Measure],
    supervisor: SupervisorFacts,
    now: float,
    taken_at: str,
) -> FleetSnapshot:
    """The snapshot of now. ``now`` is monotonic seconds, ``taken_at`` the wall clock's ISO 8601 text."""

    def picture(spec: WorkerSpec) -> WorkerSnapshot:
        log = config.log_dir / f"{spec.name}.log"
        drawn = _worker(spec, records[spec.name], measures.get(spec.name, Measure()), str(log), now)
        return replace(drawn, **_limits(config, spec, supervisor, drawn)) if isinstance(spec, DatasiteSpec) else drawn

    return FleetSnapshot(
        fleet=config.name,
        config=str(config.path),
        version=supervisor.version,
        supervisor_pid=supervisor.pid,
        supervisor_uptime_s=round(now - supervisor.started_at, 3),
        stopping=supervisor.stopping,
        taken_at=taken_at,
        revision=supervisor.revision,
        datasites=tuple(picture(spec) for spec in config.datasites),
        dashboard=picture(config.dashboard) if config.dashboard else None,
        host=_host(config, supervisor),
    )


_KINDS = {"memory": "max_memory_usage_gb", "cpu": "max_cpu_usage_percent"}


def _limits(
    config: FleetConfig, spec: DatasiteSpec, supervisor: SupervisorFacts, drawn: WorkerSnapshot
) -> dict[str, Any]:
    """The datasite's limits, who enforces those of memory and CPU, and which of the host's limits are reached."""
    resources = asdict(spec.resources)
    wanted = {kind for kind, key in _KINDS.items() if resources[key] or getattr(config.host, key)}
    kept = supervisor.held_otherwise.get(spec.name, supervisor.held)
    return {
        "limits": {key: value for key, value in resources.items() if value and key != "threads"},
        "enforced": _enforced(wanted, kept),
        "limited": {**drawn.limited, **(supervisor.host.reached if drawn.pid else {})},
    }


def _host(config: FleetConfig, supervisor: SupervisorFacts) -> HostSnapshot:
    limits = {key: value for key, value in asdict(config.host).items() if value}
    wanted = {kind for kind, key in _KINDS.items() if key in limits}
    kept = supervisor.held.intersection(*supervisor.held_otherwise.values())
    return HostSnapshot(limits, _enforced(wanted, kept), dict(supervisor.host.reached), dict(supervisor.host.near))


def _enforced(wanted: set[str], kept: frozenset[str]) -> str:
    return "no" if not wanted else "cgroup" if wanted <= kept else "watch"


def _reason(record: WorkerRecord) -> str:
    queued = record.state is WorkerState.STARTING and record.started_at is None
    return f"{record.reason}; waiting for its turn to start" if queued else record.reason


def _worker(spec: WorkerSpec, record: WorkerRecord, measure: Measure, log: str, now: float) -> WorkerSnapshot:
    status = record.status
    waiting = record.state in (WorkerState.BACKOFF, WorkerState.QUARANTINED) and record.deadline is not None
    return WorkerSnapshot(
        name=spec.name,
        state=record.state.value,
        wanted=record.wanted.value,
        ready=record.state is WorkerState.READY,
        pid=record.pid,
        port=spec.port,
        url=spec.url,
        device=status.device if status and status.device else None,
        uptime_s=round(now - record.born_at, 3) if record.pid and record.born_at is not None else None,
        restarts=record.restarts,
        restarts_by_cause=dict(record.restarts_by_cause),
        last_exit=str(record.last_exit) if record.last_exit else None,
        reason=_reason(record),
        registered=status.registered if status else None,
        registration=status.registration if status else "",
        dashboard_url=spec.dashboard_url if isinstance(spec, DatasiteSpec) else "",
        last_heartbeat=status.last_heartbeat if status else None,
        heartbeat_error=status.heartbeat_error if status else "",
        cpu_percent=measure.cpu_percent,
        memory_mb=measure.memory_mb,
        generation=record.generation,
        since_s=round(now - record.since, 3),
        next_attempt_s=round(max(0.0, (record.deadline or now) - now), 3) if waiting else None,
        log=log,
        active_experiments=list(status.active_experiments) if status else [],
        last_training_completion=status.last_training_completion if status else None,
        interrupted_jobs=list(status.interrupted_jobs) if status else [],
        datasets=[dict(one) for one in status.datasets] if status else [],
        limited={**record.pressure.reached, **(status.limited if status else {})},
        near_limits=dict(record.pressure.near),
        not_answering_s=None if record.silent_since is None else round(now - record.silent_since, 3),
        not_answering=record.silence,
    )
