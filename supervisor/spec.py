"""What the operator wants, as frozen values. Nothing here reads a file, a clock or the environment.

``supervisor.config`` makes these from ``fleet.yaml``; everything after it reads only these. All times are seconds.
How a changed value reaches a running fleet stands in the metadata of its field, or of the group that it is in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from fleet_common import layout
from fleet_common.contract import Approval, TrainingBounds


class Applies(StrEnum):
    """How a reload applies a changed value."""

    SUPERVISOR = "supervisor"  # by the supervisor, at once; no worker notices
    LIVE = "live"  # by the running worker, which gets it
    RESTART = "restart"  # by a restart of that worker alone
    LATER = "later"  # at the next `fleet up`, or by a datasite at its first start; nothing that runs reads it
    NEVER = "never"  # a running fleet cannot apply it: the reload is refused
    IDENTITY = "identity"  # not at all: another value is another worker, or another file
    WORKERS = "workers"  # as each field of the workers says


APPLIES = "applies"
SUPERVISOR, LIVE, RESTART, LATER, NEVER, IDENTITY, WORKERS = ({APPLIES: how} for how in Applies)


class RestartMode(StrEnum):
    """When a datasite that ended by itself is started again (the words of systemd and Docker)."""

    ALWAYS = "always"
    ON_FAILURE = "on-failure"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a crashed worker is brought back.

    The first crash after stable running is answered at once; crash ``n`` (n >= 2) in a row waits
    ``min(backoff_max, backoff * 2 ** (n - 2))``, lengthened by up to ``jitter`` of itself. Running ready for
    ``stable_after`` seconds forgets the crashes. More than ``max_crashes`` of them within ``window`` seconds is a
    crash loop: the worker is quarantined, and tried again every ``quarantine_retry`` seconds (0: only when asked).
    """

    mode: RestartMode = RestartMode.ALWAYS
    backoff: float = 0.5
    backoff_max: float = 60.0
    jitter: float = 0.1
    stable_after: float = 60.0
    max_crashes: int = 5
    window: float = 120.0
    quarantine_retry: float = 600.0


@dataclass(frozen=True, slots=True)
class ProbeTiming:
    """One periodic check of a datasite's own HTTP, with the kubelet's words and meaning."""

    period: float
    timeout: float
    failure_threshold: int
    success_threshold: int = 1


@dataclass(frozen=True, slots=True)
class ProbePolicy:
    """Start-up gates the other two; readiness failing only shows; liveness failing replaces the process."""

    startup: ProbeTiming = ProbeTiming(period=1.0, timeout=5.0, failure_threshold=120)
    readiness: ProbeTiming = ProbeTiming(period=10.0, timeout=5.0, failure_threshold=3)
    liveness: ProbeTiming = ProbeTiming(period=10.0, timeout=5.0, failure_threshold=6)

    @property
    def start_timeout(self) -> float:
        """Seconds that a start may take: the kubelet's rule, threshold times period."""
        return self.startup.period * self.startup.failure_threshold


@dataclass(frozen=True, slots=True)
class Rules:
    """What policy needs from a worker's spec. ``grace``: seconds from SIGTERM to SIGKILL."""

    restart: RestartPolicy = RestartPolicy()
    probes: ProbePolicy = ProbePolicy()
    grace: float = 10.0


@dataclass(frozen=True, slots=True)
class Admin:
    """The datasite's ADMIN. ``password`` None: the datasite generates a strong one at its first start and stores it."""

    email: str = field(default="admin@pdm-factory.com", metadata=RESTART)
    name: str = field(default="Factory Admin", metadata=RESTART)
    password: str | None = field(default=None, repr=False, metadata=LATER)


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """Which GPUs a datasite asks for. ``devices`` names indexes or UUIDs; empty with ``count`` > 0 means any."""

    mode: str = "auto"  # auto | none | some
    devices: tuple[str, ...] = ()
    count: int = 1
    memory_bytes: int = 0
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of one datasite; 0 means none. Names as operators know them from the dashboard."""

    max_memory_usage_gb: float = field(default=0.0, metadata=LIVE)
    max_cpu_usage_percent: float = field(default=0.0, metadata=LIVE)
    max_concurrent_training_sessions: int = field(default=3, metadata=LIVE)
    disk_space_threshold_gb: float = field(default=0.0, metadata=LIVE)
    network_bandwidth_limit_mbps: float = field(default=0.0, metadata=LIVE)
    threads: int = field(default=0, metadata=RESTART)  # OMP/MKL/torch threads; 0: from cores and datasites


@dataclass(frozen=True, slots=True)
class HostLimits:
    """Limits of all datasites together; 0 means none."""

    max_memory_usage_gb: float = 0.0
    max_cpu_usage_percent: float = 0.0
    max_concurrent_training_sessions: int = 0
    disk_space_threshold_gb: float = 0.0
    network_bandwidth_limit_mbps: float = 0.0


@dataclass(frozen=True, slots=True)
class Access:
    """What callers without an account may do, and the largest request body that a user may send."""

    allow_guests: bool = False
    allow_registration: bool = False
    max_upload_gb: float = 2.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the dashboard is told about the datasite at registration."""

    max_concurrent_training: int = 3
    supported_models: tuple[str, ...] = ("torch",)
    data_types: tuple[str, ...] = ("tabular", "timeseries")
    security_level: str = "standard"


@dataclass(frozen=True, slots=True)
class Mock:
    """What the centre sees instead of the data. ``rule``: synthetic (random values that know nothing of the data),
    empty (no rows), or file: the owner's own, at ``path``."""

    rule: str = "synthetic"
    rows: int | None = 100  # of a synthetic one; None: as many as the data has, which tells how many these are
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Dataset:
    """A file of this machine that a datasite offers: its mock to everybody, its rows to approved code only."""

    name: str
    path: Path  # .csv, .parquet or .npz
    mock: Mock = Mock()
    description: str = ""
    training_bounds: TrainingBounds | None = None  # None: the datasite's


_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


def http_url(host: str, port: int) -> str:
    """A URL to connect to: a wildcard becomes loopback, an IPv6 address gets its brackets."""
    reachable = _WILDCARDS.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


@dataclass(frozen=True, slots=True)
class DatasiteSpec:
    """The datasite of one production line. ``hostname`` is bound; ``advertise`` is what the dashboard is told."""

    name: str = field(metadata=IDENTITY)
    port: int = field(metadata=RESTART)
    hostname: str = field(default="localhost", metadata=RESTART)
    advertise: str = field(default="", metadata=RESTART)
    dashboard_url: str = field(default="", metadata=RESTART)
    heartbeat_url: str = field(default="", metadata=RESTART)  # empty: the dashboard's
    heartbeat_interval: float = field(default=30.0, metadata=LIVE)
    priority: int = field(default=0, metadata=SUPERVISOR)  # higher ones are started first
    dev_mode: bool = field(default=False, metadata=RESTART)
    reset: bool = field(default=False, metadata=LATER)
    verbose: bool = field(default=False, metadata=RESTART)
    association_request_auto_approval: bool = field(default=True, metadata=RESTART)
    admin: Admin = Admin()
    restart: RestartPolicy = field(default=RestartPolicy(), metadata=SUPERVISOR)
    probes: ProbePolicy = field(default=ProbePolicy(), metadata=SUPERVISOR)
    gpu: GpuRequest = field(default=GpuRequest(), metadata=RESTART)
    resources: Resources = Resources()
    access: Access = field(default=Access(), metadata=RESTART)
    capabilities: Capabilities = field(default=Capabilities(), metadata=LIVE)
    region: str = field(default="", metadata=LIVE)
    location: str = field(default="", metadata=LIVE)
    approved_code: tuple[Approval, ...] = field(default=(), metadata=LIVE)  # functions that may run without a request
    datasets: tuple[Dataset, ...] = field(default=(), metadata=LIVE)
    training_bounds: TrainingBounds = field(default=TrainingBounds(), metadata=LIVE)  # of datasets without their own
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False, metadata=RESTART)  # may hold secrets

    @property
    def url(self) -> str:
        """Where a client on this host reaches the datasite."""
        return http_url(self.advertise or self.hostname, self.port)


DASHBOARD_NAME = layout.DASHBOARD
"""The name of the embedded dashboard; no datasite may have it."""


@dataclass(frozen=True, slots=True)
class DashboardSpec:
    """The embedded central dashboard: one more supervised process, on loopback."""

    hostname: str = field(default="127.0.0.1", metadata=RESTART)
    port: int = field(default=5000, metadata=RESTART)
    late_after: float = field(default=45.0, metadata=RESTART)  # seconds without a beat
    offline_after: float = field(default=90.0, metadata=RESTART)
    restart: RestartPolicy = field(default=RestartPolicy(), metadata=SUPERVISOR)
    probes: ProbePolicy = field(default=ProbePolicy(), metadata=SUPERVISOR)

    @property
    def name(self) -> str:
        return DASHBOARD_NAME

    @property
    def url(self) -> str:
        return http_url(self.hostname, self.port)


WorkerSpec = DatasiteSpec | DashboardSpec
"""Anything the supervisor keeps alive."""


@dataclass(frozen=True, slots=True)
class StartupPolicy:
    """How many workers start at once (0: from the cores), and the least time between two starts."""

    parallel: int = 0
    stagger: float = 0.0


@dataclass(frozen=True, slots=True)
class Hook:
    """Told of events: ``command`` gets the event as JSON on its standard input, ``webhook`` as the body of a POST.

    Exactly one of the two is set. ``events`` empty: of every kind.
    """

    command: tuple[str, ...] = ()
    webhook: str = field(default="", repr=False)  # a URL of a chat service is a secret
    events: tuple[str, ...] = ()
    timeout: float = 10.0
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # of a command, beside what all see


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """A whole, valid ``fleet.yaml``; every path absolute."""

    name: str = field(metadata=SUPERVISOR)
    path: Path = field(metadata=IDENTITY)
    state_dir: Path = field(metadata=NEVER)
    log_dir: Path = field(metadata=NEVER)
    datasites: tuple[DatasiteSpec, ...] = field(metadata=WORKERS)
    dashboard: DashboardSpec | None = field(default=None, metadata=WORKERS)
    shutdown_grace: float = field(default=10.0, metadata=SUPERVISOR)
    startup: StartupPolicy = field(default=StartupPolicy(), metadata=SUPERVISOR)
    host: HostLimits = field(default=HostLimits(), metadata=SUPERVISOR)
    on_event: tuple[Hook, ...] = field(default=(), metadata=SUPERVISOR)

    @property
    def state(self) -> layout.StateFolder:
        """The layout of ``state_dir``."""
        return layout.StateFolder(self.state_dir)

    @property
    def workers(self) -> tuple[WorkerSpec, ...]:
        """Every process to keep alive, the embedded dashboard first."""
        dashboard = (self.dashboard,) if self.dashboard else ()
        return (*dashboard, *self.datasites)

    def rules(self, spec: WorkerSpec) -> Rules:
        """What policy needs from the spec of that worker."""
        return Rules(spec.restart, spec.probes, self.shutdown_grace)

    def worker(self, name: str) -> WorkerSpec:
        """The worker of that name. Raises KeyError when there is none."""
        for spec in self.workers:
            if spec.name == name:
                return spec
        raise KeyError(name)
