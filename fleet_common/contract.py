"""The messages between supervisor and worker. Standard library only; both sides import it.

Down: a ``LaunchOrder``, pickled through the forkserver's pipe (so that no secret is ever on a command line).
Later: ``LiveSettings``, as a file in the datasite's state folder that SIGHUP asks the worker to read.
Up: a ``StatusDocument``, as the *pulse* (a JSON datagram on a unix socket, sent when something changes) and as the
answer to ``GET /factory.status``. All carry the generation, so that a late message of a dead process is recognised.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import IntEnum, StrEnum
from typing import Annotated, Any

from fleet_common.untrusted import Between, Natural, Unfit, decoded

LARGEST_PULSE = 64 * 1024
"""Bytes of a pulse: room for some hundred datasets."""
LARGEST_STATUS = 1024 * 1024
"""Bytes of a status over HTTP."""

STATUS_PATH = "/factory.status"
PROBE_HEADER = "x-fleet-probe"
"""The header with the supervisor's secret. A request with it gets the whole status."""
PUBLIC_STATUS = (
    *("factory_name", "factory_hostname", "factory_port", "device", "status", "phase"),
    *("current_load", "last_training_completion"),
)
"""The fields of the status that anybody may see unchanged."""

LEASH_VARIABLE = "FLEET_LEASH"
"""The environment variable with the leash's absolute path: it also marks programs that a worker's children execute."""


def code_hash(source: str) -> str:
    """What ``approved_code`` in fleet.yaml lists for the function with this source.

    The hash of the source as PySyft keeps it (from the first line, decorators included), in UTF-8, without the white
    space at its end. That may differ, because PySyft lets a user submit a text only once: an orchestrator adds empty
    lines to request the same function for a dataset that was published again.
    """
    return f"sha256:{hashlib.sha256(source.rstrip().encode()).hexdigest()}"


class ExitCode(IntEnum):
    """Exit codes of a worker that ends by itself; the numbers are from sysexits(3)."""

    CLEAN = 0
    FAILURE = 70  # EX_SOFTWARE: an unexpected error; the log has the traceback
    NO_SPACE = 74  # EX_IOERR: a disk is full; a restart helps once there is space
    CONFIGURATION = 78  # EX_CONFIG: a restart cannot help; ``StatusDocument.failure`` says why


class Phase(StrEnum):
    """The phase of a worker's life."""

    LAUNCHING = "launching"
    SERVING = "serving"
    STOPPING = "stopping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one datasite may use; 0 means no limit. Bytes are bytes, ``bandwidth`` is bytes a second."""

    sessions: int = 3  # trainings at a time; others wait. Never 0
    memory: int = 0
    cpu_percent: float = 0.0  # 100 is one core
    disk_free: int = 0  # free space to keep on the disk of the state folder
    bandwidth: int = 0


@dataclass(frozen=True, slots=True)
class Access:
    """What callers without an account may do, and the largest body of a user (bytes)."""

    guests: bool = False
    registration: bool = False
    max_upload: int = 2 * 10**9


@dataclass(frozen=True, slots=True)
class DatasetOrder:
    """A local file to publish. ``mock``: synthetic, empty, or file (the owner's own, at ``mock_path``)."""

    name: str
    path: str  # absolute; .csv, .parquet or .npz
    description: str = ""
    mock: str = "synthetic"
    mock_rows: int | None = 100  # of a synthetic one; None: as many as the data has
    mock_path: str = ""


@dataclass(frozen=True, slots=True)
class Approval:
    """An entry of ``approved_code``: the function with this ``hash`` may run on this ``dataset``.

    ``assets``: only these of it; empty: all. ``by``: the e-mail of the only user; empty: every user. ``config``: the
    values that the function's configuration may have, by key; other keys are free. ``runs``: how often; 0: no limit.
    ``until``: the end, ISO 8601 with offset; empty: none.
    """

    hash: str
    dataset: str
    assets: tuple[str, ...] = ()
    by: str = ""
    config: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    runs: int = 0
    until: str = ""

    @property
    def key(self) -> str:
        """What is approved, and for whom: runs are counted under it. Limits may change and leave it the same."""
        return json.dumps([self.hash, self.dataset, sorted(self.assets), self.by])


Range = tuple[float, float]
"""The least and the most."""


@dataclass(frozen=True, slots=True)
class TrainingBounds:
    """The owner's bounds for trainings on one dataset. ``enforce`` False: none of them holds.

    ``target``, ``features``: the only columns of a table to learn, and to learn from; empty: the scientist chooses.
    ``clip``: the largest L2 norm of the change of the parameters; 0: any. ``noise``: random noise on each value that
    changed, as a share of the largest change in its tensor. ``exact_metrics``: all digits instead of two.
    """

    enforce: bool = True
    min_samples: int = 50
    target: str = ""
    features: tuple[str, ...] = ()
    batch_size: Range = (4, 1024)
    learning_rate: Range = (1e-6, 1.0)
    epochs: Range = (1, 1000)
    steps: Range = (2, 1_000_000)
    clip: float = 100.0
    noise: float = 0.05
    exact_metrics: bool = False


AnyBounds = dict[str, TrainingBounds]
"""By dataset. "": those of all others."""


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """Settings that a running worker applies without a restart. Only the worker of that ``generation`` does."""

    generation: Natural
    heartbeat_interval: Annotated[float, Between(1e-3, 1e9)]
    capabilities: dict[str, Any]
    region: str = ""
    location: str = ""
    approved_code: tuple[Approval, ...] = ()
    limits: Limits = Limits()
    datasets: tuple[DatasetOrder, ...] = ()
    training_bounds: AnyBounds = field(default_factory=dict)

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class AdminOrder:
    """The admin that a datasite creates at its first start. Without a password, it draws one."""

    email: str = ""
    name: str = ""
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ComputeOrder:
    """What a datasite computes with."""

    threads: int = 1
    threads_fixed: bool = False  # every training takes ``threads``, instead of sharing them
    cuda_visible_devices: str | None = None  # UUIDs; None: leave as it is; "": no GPU
    gpu_memory_bytes: int = 0  # limit for each GPU it sees; 0: no limit


@dataclass(frozen=True, slots=True)
class LaunchOrder:
    """Everything a worker needs to run one datasite. Paths are absolute, times are in seconds. ``settings``
    may change while it runs."""

    name: str
    hostname: str
    port: int
    advertise: str
    dashboard_url: str
    heartbeat_url: str
    state_dir: str  # this datasite's own: identity, database, secrets, working directory
    log_dir: str
    settings: LiveSettings
    pulse_address: str = ""  # unix datagram socket of the supervisor; empty: nobody listens
    dev_mode: bool = False
    verbose: bool = False
    existed: bool = False  # it was ready before: if its state is not there, it must not start as a new datasite
    reset: bool = False  # delete all state first. A supervisor never sets it: a restart never loses data
    association_request_auto_approval: bool = True
    admin: AdminOrder = AdminOrder()
    access: Access = Access()
    compute: ComputeOrder = ComputeOrder()
    environment: dict[str, str] = field(default_factory=dict)
    cgroup: str = ""  # folder of the control group that the worker puts itself into; empty: none

    @property
    def generation(self) -> int:
        return self.settings.generation


@dataclass(frozen=True, slots=True)
class DashboardOrder:
    """Everything the embedded dashboard's process needs."""

    name: str
    generation: int
    hostname: str
    port: int
    database: str
    log_dir: str
    state_dir: str
    pulse_address: str = ""
    cgroup: str = ""  # as a datasite's
    late_after: float = 45.0  # seconds without a beat
    offline_after: float = 90.0


DatasetSaid = dict[str, str | None]
"""What a status says of a dataset: name, published_at, problem. Everybody may read it."""


@dataclass(frozen=True, slots=True)
class StatusDocument:
    """What a worker reports about itself. Wall-clock times are ISO 8601 with offset; None: not yet.

    ``registered`` is None until a registration is answered. It is False when the dashboard has no registration
    (it answers 404) or cannot be reached; ``registration`` says which.
    """

    factory_name: str
    factory_hostname: str
    factory_port: int
    device: str
    status: str  # as the dashboard sees it: "running" | "starting" | "stopping" | "failed"
    generation: Natural = 0
    pid: Natural = 0
    phase: str = Phase.LAUNCHING
    registered: bool | None = None
    registration: str = ""
    last_heartbeat: str | None = None
    heartbeat_error: str = ""
    failure: str = ""
    active_experiments: list[str] = field(default_factory=list)  # names of the functions that run now
    last_training_completion: str | None = None
    interrupted_jobs: list[str] = field(default_factory=list)  # jobs interrupted when the last process ended
    jobs_cut_off: Natural = 0  # jobs of this process that ended without a result
    last_job_cut_off: str = ""  # the last of them, and why
    limited: dict[str, str] = field(default_factory=dict)  # limits in effect now (disk, bandwidth), in words
    datasets: list[DatasetSaid] = field(default_factory=list)

    failed_logins: int = 0  # since this process started; and the last of them
    last_failed_login: str = ""
    refused_calls: int = 0  # calls refused because of a missing account, a missing role or a bad message
    last_refused_call: str = ""

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    def to_public_json(self) -> bytes:
        """The public part: no process, no error, no name of a dataset or function."""
        said = asdict(self)
        return json.dumps(
            {key: said[key] for key in PUBLIC_STATUS if key in said}
            | {"active_experiments": len(self.active_experiments)}
        ).encode()


def parse_status(raw: bytes, limit: int = LARGEST_STATUS) -> StatusDocument | Unfit:
    """The document in ``raw``; unknown keys are ignored: a newer worker may send them."""
    found: StatusDocument | Unfit = decoded(raw, StatusDocument, limit)
    return found
