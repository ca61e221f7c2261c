"""The keys of ``fleet.yaml`` as pydantic models: names, readers, descriptions, and the JSON schema made of them.

No default stands here: ``supervisor.spec`` has them. What needs two keys far apart is ``relations``' affair.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from supervisor.config import values
from supervisor.config.tree import Scalar
from supervisor.config.values import Wrong
from supervisor.history import EventKind
from supervisor.spec import (
    Access,
    Admin,
    Capabilities,
    DashboardSpec,
    DatasiteSpec,
    FleetConfig,
    GpuRequest,
    Hook,
    HostLimits,
    Mock,
    ProbePolicy,
    ProbeTiming,
    Resources,
    RestartMode,
    RestartPolicy,
    StartupPolicy,
)

MOST_DATASITES = 1000
MOST_DATASETS = 100

_REFERENCE = {"type": "string", "pattern": r"\$\{(env|file):", "description": "Filled in when the file is read."}
_LINE = {"type": "string", "minLength": 1}
_SECONDS = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)? ?(ms|s|m|h|d))+$"}
_BYTES = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(B|[kKMGT]B|[KMGT]iB)$"}
_NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"}
_GPU_UUID = {"type": "string", "pattern": "^(GPU|MIG|MIG-GPU)-[0-9A-Fa-f]"}
_GPU_INDEX = {"type": "integer", "minimum": 0, "maximum": 999}


def _any(*schemas: dict[str, Any]) -> WithJsonSchema:
    """For editors: one of ``schemas``, or a reference that stands for it."""
    return WithJsonSchema({"anyOf": [*schemas, _REFERENCE]})


def _numbers(kind: str, low: float, high: float = math.inf) -> dict[str, Any]:
    return {"type": kind, "minimum": low} | ({"maximum": high} if math.isfinite(high) else {})


Text = Annotated[str, BeforeValidator(values.text), WithJsonSchema(_LINE)]
OptionalText = Annotated[str, BeforeValidator(values.optional_text), WithJsonSchema({"type": "string"})]
CodeHash = Annotated[
    str, BeforeValidator(values.code_hash), _any({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"})
]
Folder = Annotated[str, BeforeValidator(values.folder), WithJsonSchema(_LINE)]
DatasetName = Annotated[
    str,
    BeforeValidator(values.dataset_name),
    _any({"type": "string", "pattern": "^[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?$"}),
]
DataFile = Annotated[
    str,
    BeforeValidator(values.data_file),
    _any({"type": "string", "pattern": r"^[^~].*\.([cC][sS][vV]|[pP][aA][rR][qQ][uU][eE][tT]|[nN][pP][zZ])$"}),
]
MockRows = Annotated[
    int | None, BeforeValidator(values.mock_rows), _any(_numbers("integer", 1, 100_000), {"const": "same"})
]
Name = Annotated[str, BeforeValidator(values.name), _any(_NAME)]
Host = Annotated[str, BeforeValidator(values.host), WithJsonSchema(_LINE)]
ReachableHost = Annotated[str, BeforeValidator(values.reachable_host), WithJsonSchema(_LINE)]
Url = Annotated[str, BeforeValidator(values.url), _any({"type": "string", "pattern": "^https?://"})]
Webhook = Annotated[str, BeforeValidator(values.webhook), _any({"type": "string", "pattern": "^https?://"})]
Email = Annotated[str, BeforeValidator(values.email), _any({"type": "string", "format": "email"})]
Password = Annotated[str, BeforeValidator(values.password), _any({"type": "string", "minLength": 8, "maxLength": 72})]
Flag = Annotated[bool, BeforeValidator(values.boolean), _any({"type": "boolean"})]
Port = Annotated[int, BeforeValidator(values.whole(1, 65535, "a port")), _any(_numbers("integer", 1, 65535))]
Version = Annotated[int, BeforeValidator(values.whole(1, 1, "the version of this file")), WithJsonSchema({"const": 1})]
Count = Annotated[int, BeforeValidator(values.whole(1, 1000)), _any(_numbers("integer", 1, 1000))]
Once = Annotated[int, BeforeValidator(values.whole(1, 1)), _any({"const": 1})]
Limit = Annotated[int, BeforeValidator(values.whole(1, 100_000)), _any(_numbers("integer", 1, 100_000))]
Priority = Annotated[int, BeforeValidator(values.whole(-1000, 1000)), _any(_numbers("integer", -1000, 1000))]
Tally = Annotated[int, BeforeValidator(values.whole(0, 1000)), _any(_numbers("integer", 0, 1000))]
Amount = Annotated[float, BeforeValidator(values.number(0, math.inf)), _any(_numbers("number", 0))]
Uploads = Annotated[float, BeforeValidator(values.number(0.001, 100)), _any(_numbers("number", 0.001, 100))]
Share = Annotated[float, BeforeValidator(values.number(0, 1)), _any(_numbers("number", 0, 1))]
Duration = Annotated[
    float,
    BeforeValidator(values.duration(0)),
    _any(_numbers("number", 0, values.LONGEST), _SECONDS),
]
PositiveDuration = Annotated[
    float,
    BeforeValidator(values.duration(0, over=True)),
    _any({"type": "number", "exclusiveMinimum": 0, "maximum": values.LONGEST}, _SECONDS),
]
Size = Annotated[int, BeforeValidator(values.size), _any(_numbers("number", 0), _BYTES)]
EnvironmentValue = Annotated[
    str, BeforeValidator(values.environment_value), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
_MODES = tuple(str(mode) for mode in RestartMode)
Mode = Annotated[
    RestartMode,
    BeforeValidator(lambda value: RestartMode(values.choice(_MODES)(value))),
    _any({"enum": list(_MODES)}),
]
Embedded = Annotated[
    str,
    BeforeValidator(values.embedded),
    WithJsonSchema({"const": "embedded", "description": "Fleet runs a dashboard itself, on this machine."}),
]


# What fleet or PySyft sets by itself, and the setting to use instead.
_OWNED = (
    (r"SYFT_TEMP_ROOT", "use state_dir"),
    (r"DEFAULT_ROOT_EMAIL", "use admin.email"),
    (r"DEFAULT_ROOT_USERNAME", "use admin.name"),
    (r"DEFAULT_ROOT_PASSWORD", "use admin.password"),
    (r"SERVER_NAME", "use name"),
    (r"SERVER_(UID|PRIVATE_KEY)", "each datasite's is drawn once and kept under state_dir"),
    (r"SERVER_(PORT|HOST)", "use port and hostname"),
    (r"SERVER_.*|SYFT_.*", "fleet sets PySyft up from the other keys"),
    (r"(CUDA|NVIDIA|ROCR|HIP)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER", "use gpu"),
    (r"(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB|BLIS)_NUM_THREADS|VECLIB_MAXIMUM_THREADS", "use resources.threads"),
    (r"FLEET_.*", "names that begin with FLEET_ are fleet's own"),
    (r"NOTIFY_SOCKET|WATCHDOG_(USEC|PID)", "systemd speaks with fleet, not with a datasite"),
)


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise Wrong("expected the name of an environment variable: letters, digits and _, not beginning with a digit")
    return name


def _environment_name(name: str) -> str:
    _variable_name(name)
    for pattern, instead in _OWNED:
        if re.fullmatch(pattern, name):
            raise Wrong(f"is not for environment: {instead}")
    return name


EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
VariableName = Annotated[str, AfterValidator(_variable_name)]


def _set(source: object, key: str, description: str) -> Any:
    """A key whose default is ``source``'s."""
    return Field(default=getattr(source, key), description=description)


class Keys(BaseModel):
    """A mapping of the file: these keys and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


_ADMIN, _RESTART, _PROBES, _GPU = Admin(), RestartPolicy(), ProbePolicy(), GpuRequest()
_RESOURCES, _CAPABILITIES, _DASHBOARD = Resources(), Capabilities(), DashboardSpec()
_ACCESS = Access()
_MOCK = Mock()
_DATASITE = DatasiteSpec("", 0)
_STARTUP, _HOOK, _HOST = StartupPolicy(), Hook(), HostLimits()
_GRACE: Any = next(field.default for field in fields(FleetConfig) if field.name == "shutdown_grace")


class AdminKeys(Keys):
    """The datasite's administrator."""

    email: Email = _set(_ADMIN, "email", "What the administrator logs in with.")
    name: Text = _set(_ADMIN, "name", "The administrator's display name.")
    password: Password | None = Field(
        default=None,
        repr=False,
        description="At least 8 characters, best as ${env:NAME} or ${file:path}. Absent: a strong one is drawn at the "
        "first start; fleet credentials shows it. A password changed later is never reset.",
    )


class RestartKeys(Keys):
    """How a crashed datasite is brought back."""

    mode: Mode = _set(_RESTART, "mode", "When a datasite that ended by itself is started again.")
    backoff: PositiveDuration = _set(
        _RESTART, "backoff", "Wait before the second restart in a row, doubled for each further one."
    )
    backoff_max: PositiveDuration = _set(_RESTART, "backoff_max", "The longest wait between restarts.")
    jitter: Share = _set(_RESTART, "jitter", "Each wait is lengthened by up to this share of itself.")
    stable_after: Duration = _set(_RESTART, "stable_after", "Ready for this long, earlier crashes are forgotten.")
    max_crashes: Tally = _set(_RESTART, "max_crashes", "More crashes than this within window quarantine the datasite.")
    window: PositiveDuration = _set(_RESTART, "window", "The time in which max_crashes counts.")
    quarantine_retry: Duration = _set(
        _RESTART, "quarantine_retry", "Wait before a quarantined datasite is tried again; 0: only when asked."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_max < self.backoff:
            raise Wrong(f"expected no less than backoff, which is {self.backoff:g} s", key="backoff_max")
        return self


def _probe(probe: ProbeTiming, key: str) -> Any:
    said = {
        "period": "Time from one check to the next.",
        "timeout": "An answer later than this is a failure.",
        "failure_threshold": "So many failures in a row turn it bad.",
        "success_threshold": "So many successes in a row turn it good again.",
    }
    return _set(probe, key, said[key])


class StartupProbeKeys(Keys):
    """Whether the datasite has started; until then the other two wait. Failing replaces the process."""

    period: PositiveDuration = _probe(_PROBES.startup, "period")
    timeout: PositiveDuration = _probe(_PROBES.startup, "timeout")
    failure_threshold: Limit = Field(
        default=_PROBES.startup.failure_threshold,
        description="A start may take this many periods; one that takes longer has failed.",
    )
    success_threshold: Once = _probe(_PROBES.startup, "success_threshold")


class ReadinessKeys(Keys):
    """Whether the datasite is shown as ready. Failing changes nothing else."""

    period: PositiveDuration = _probe(_PROBES.readiness, "period")
    timeout: PositiveDuration = _probe(_PROBES.readiness, "timeout")
    failure_threshold: Count = _probe(_PROBES.readiness, "failure_threshold")
    success_threshold: Count = _probe(_PROBES.readiness, "success_threshold")


class LivenessKeys(Keys):
    """Whether the process is alive. Failing replaces it."""

    period: PositiveDuration = _probe(_PROBES.liveness, "period")
    timeout: PositiveDuration = _probe(_PROBES.liveness, "timeout")
    failure_threshold: Count = _probe(_PROBES.liveness, "failure_threshold")
    success_threshold: Once = _probe(_PROBES.liveness, "success_threshold")


class ProbeKeys(Keys):
    """The checks of a datasite's own HTTP."""

    startup: StartupProbeKeys = Field(
        default_factory=StartupProbeKeys, description="Whether the datasite has started; gates the other two."
    )
    readiness: ReadinessKeys = Field(
        default_factory=ReadinessKeys, description="Whether the datasite is shown as ready, no more."
    )
    liveness: LivenessKeys = Field(
        default_factory=LivenessKeys, description="Whether the process is alive. Failing replaces it."
    )


def _distinct(devices: list[str]) -> list[str]:
    if not devices or len(set(devices)) < len(devices):
        raise Wrong("expected at least one GPU, and each once")
    return devices


Device = Annotated[str, BeforeValidator(values.device), _any(_GPU_INDEX, _GPU_UUID)]
Devices = Annotated[
    list[Device], AfterValidator(_distinct), Field(json_schema_extra={"minItems": 1, "uniqueItems": True})
]


class GpuKeys(Keys):
    """A request for GPUs in full."""

    devices: Devices = Field(default=[], description="Exactly these GPUs. Absent: any.")
    count: Count = _set(_GPU, "count", "How many GPUs, whichever are free.")
    memory: Size = Field(default=_GPU.memory_bytes, description="GPU memory that has to be free, such as 8GiB; 0: any.")
    exclusive: Flag = _set(_GPU, "exclusive", "Whether the GPUs are shared with no other datasite.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.devices and "count" in self.model_fields_set:
            raise Wrong("expected either devices or count", key="count")
        return self


GpuWord = Annotated[str, BeforeValidator(values.gpu_word), _any({"enum": ["auto", "none"]}, _GPU_INDEX, _GPU_UUID)]


def _form(value: Any) -> str:
    """The shape a key was given in; also what pydantic adds to an error's place."""
    return "(word)" if isinstance(value, Scalar | str) else "(list)" if isinstance(value, list) else "(keys)"


Gpu = Annotated[
    Annotated[GpuWord, Tag("(word)")] | Annotated[Devices, Tag("(list)")] | Annotated[GpuKeys, Tag("(keys)")],
    Discriminator(_form),
]


class ResourceKeys(Keys):
    """Limits of one datasite; 0 means none."""

    max_memory_usage_gb: Amount = _set(_RESOURCES, "max_memory_usage_gb", "Memory, in GB; 0: no limit.")
    max_cpu_usage_percent: Amount = _set(
        _RESOURCES, "max_cpu_usage_percent", "CPU, where 100 is one core; 0: no limit."
    )
    max_concurrent_training_sessions: Count = _set(
        _RESOURCES, "max_concurrent_training_sessions", "Trainings that run at the same time; more wait."
    )
    disk_space_threshold_gb: Amount = _set(
        _RESOURCES, "disk_space_threshold_gb", "Free disk space to keep, in GB; 0: no limit."
    )
    network_bandwidth_limit_mbps: Amount = _set(
        _RESOURCES, "network_bandwidth_limit_mbps", "Network, in Mbit/s; 0: no limit."
    )
    threads: Tally = _set(_RESOURCES, "threads", "OMP, MKL and torch threads; 0: the datasite's share of the cores.")


class AccessKeys(Keys):
    """What is open to callers without an account."""

    allow_guests: Flag = _set(
        _ACCESS, "allow_guests", "Whether callers without an account may read names, descriptions and mocks."
    )
    allow_registration: Flag = _set(
        _ACCESS, "allow_registration", "Whether anybody may make an account (a data scientist's) by himself."
    )
    max_upload_gb: Uploads = _set(_ACCESS, "max_upload_gb", "The largest body that a user may send, in GB.")


class CapabilityKeys(Keys):
    """What the dashboard is told at registration."""

    max_concurrent_training: Count | None = Field(
        default=None, description="Trainings at the same time. Absent: resources.max_concurrent_training_sessions."
    )
    supported_models: list[Text] = Field(default=list(_CAPABILITIES.supported_models), description="Kinds of models.")
    data_types: list[Text] = Field(default=list(_CAPABILITIES.data_types), description="Kinds of data held here.")
    security_level: Text = _set(_CAPABILITIES, "security_level", "A word for the dashboard.")


MockWord = Annotated[
    str, BeforeValidator(values.choice(("synthetic", "empty"))), _any({"enum": ["synthetic", "empty"]})
]


class MockKeys(Keys):
    """What the centre sees instead of the data, in full. Either path or rows."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    path: DataFile | None = Field(default=None, description="The owner's own mock, a file of the same kind.")
    rows: MockRows = Field(
        default=_MOCK.rows,
        description="A synthetic mock of so many rows; same: as many as the data has, which reveals the number.",
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if len(self.model_fields_set & {"path", "rows"}) != 1:
            raise Wrong("expected either path or rows", key="rows" if "rows" in self.model_fields_set else "path")
        return self


MockRule = Annotated[
    Annotated[MockWord, Tag("(word)")] | Annotated[MockKeys, Tag("(keys)")],
    Discriminator(lambda value: "(keys)" if isinstance(value, dict) else "(word)"),
]


class DatasetKeys(Keys):
    """A file of this machine that a datasite offers to the centre."""

    name: DatasetName = Field(description="The name under which the centre finds it.")
    path: DataFile = Field(description="A CSV, Parquet or NPZ file. Relative to this file. Read again when it changes.")
    mock: MockRule = Field(
        default=_MOCK.rule,
        description="What the centre sees instead: synthetic (random values that know nothing of the data), empty, or "
        "path or rows.",
    )
    description: OptionalText = Field(default="", description="What it is, for the centre.")

    @model_validator(mode="after")
    def _same_kind(self) -> Self:
        kind = self.path.rpartition(".")[2].lower()
        if isinstance(self.mock, MockKeys) and self.mock.path and not self.mock.path.lower().endswith(f".{kind}"):
            raise Wrong(f"expected a file of the data's own kind, .{kind}", key="mock")
        return self


def _each_name_once(datasets: list[DatasetKeys]) -> list[DatasetKeys]:
    names = [one.name for one in datasets]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        first, second = [number for number, name in enumerate(names, 1) if name == twice][:2]
        raise Wrong(f"datasets {first} and {second} have the same name; each needs its own")
    return datasets


Datasets = Annotated[list[DatasetKeys], AfterValidator(_each_name_once)]


class SharedKeys(Keys):
    """What a datasite may be told, and defaults may say for all."""

    hostname: Host = _set(_DATASITE, "hostname", "Address to listen on; 0.0.0.0 for every address of the machine.")
    advertise: ReachableHost | None = Field(
        default=None,
        description="Host under which others reach the datasite. Absent: hostname, or the machine's full name where "
        "hostname is 0.0.0.0 or ::.",
    )
    dashboard_url: Url | None = Field(
        default=None, description="The central dashboard to register with. Absent: the embedded one."
    )
    heartbeat_url: Url | None = Field(default=None, description="Where heartbeats go, if elsewhere than dashboard_url.")
    heartbeat_interval: PositiveDuration = _set(_DATASITE, "heartbeat_interval", "Time from one heartbeat to the next.")
    priority: Priority = _set(_DATASITE, "priority", "Higher ones are started first.")
    dev_mode: Flag = _set(_DATASITE, "dev_mode", "PySyft's development mode. Not for production.")
    reset: Flag = _set(_DATASITE, "reset", "Remove this datasite's data at fleet up, after asking.")
    verbose: Flag = _set(_DATASITE, "verbose", "Log on the console too.")
    association_request_auto_approval: Flag = _set(
        _DATASITE, "association_request_auto_approval", "Whether other PySyft servers may connect without being asked."
    )
    admin: AdminKeys = Field(default_factory=AdminKeys, description="The datasite's administrator.")
    restart: RestartKeys = Field(default_factory=RestartKeys, description="How a crashed datasite is brought back.")
    probes: ProbeKeys = Field(default_factory=ProbeKeys, description="The checks of a datasite's own HTTP.")
    gpu: Gpu = Field(
        default=_GPU.mode,
        description="auto, none, a GPU's index or UUID, a list of these, or count, memory, exclusive.",
    )
    resources: ResourceKeys = Field(default_factory=ResourceKeys, description="Limits; 0 means none.")
    access: AccessKeys = Field(default_factory=AccessKeys, description="What is open to callers without an account.")
    capabilities: CapabilityKeys = Field(
        default_factory=CapabilityKeys, description="What the dashboard is told at registration."
    )
    region: OptionalText = _set(_DATASITE, "region", "Where the plant is; the dashboard groups by it.")
    location: OptionalText = _set(_DATASITE, "location", "Where the line is within it, for people.")
    approved_code: list[CodeHash] = Field(
        default=[],
        description="Functions that run without being approved one by one, each by the SHA-256 of its source: sha256:…",
    )
    datasets: Datasets = Field(
        default=[], max_length=MOST_DATASETS, description="Files of this machine, offered to the centre with a mock."
    )
    environment: dict[EnvironmentName, EnvironmentValue] = Field(
        default={}, repr=False, description="Environment variables of this datasite, handed on as they are written."
    )


class DefaultKeys(SharedKeys):
    """Settings of every datasite that does not say otherwise; mappings in them are merged key by key."""


class DatasiteKeys(SharedKeys):
    """One production line."""

    name: Name = Field(description=f"The datasite's name: {values.NAME_RULE}.")
    port: Port = Field(description="The TCP port to listen on.")


class DashboardKeys(Keys):
    """The embedded dashboard in full."""

    mode: Embedded = Field(default="embedded", description="Fleet runs a dashboard itself, on this machine.")
    hostname: Host = _set(_DASHBOARD, "hostname", "Address to listen on.")
    port: Port = _set(_DASHBOARD, "port", "The TCP port to listen on.")
    late_after: PositiveDuration = _set(_DASHBOARD, "late_after", "A datasite without a beat for this long is late.")
    offline_after: PositiveDuration = _set(
        _DASHBOARD, "offline_after", "A datasite without a beat for this long is offline."
    )

    @model_validator(mode="after")
    def _late_before_offline(self) -> Self:
        if self.offline_after < self.late_after:
            raise Wrong("expected at least late_after, as a datasite is late before it is offline", key="offline_after")
        return self


Dashboard = Annotated[
    Annotated[Embedded, Tag("(word)")] | Annotated[DashboardKeys, Tag("(keys)")],
    Discriminator(lambda value: "(keys)" if isinstance(value, dict) else "(word)"),
]


class StartupKeys(Keys):
    """How the datasites of the fleet are started."""

    parallel: Tally = _set(_STARTUP, "parallel", "How many start at the same time; 0: twice the cores, at least 4.")
    stagger: Duration = _set(_STARTUP, "stagger", "Least time from one start to the next.")


def _known_events(names: list[str]) -> list[str]:
    known = [kind.value for kind in EventKind]
    if unknown := [name for name in names if name not in known]:
        raise Wrong(f"expected kinds of events, not {', '.join(unknown)}; there are {', '.join(known)}")
    return names


class HookKeys(Keys):
    """Something that is told of events. Either command or webhook."""

    command: list[Text] = Field(
        default=[], description="Program and arguments, without a shell; gets the event as JSON on standard input."
    )
    webhook: Webhook = Field(default=_HOOK.webhook, repr=False, description="A URL; gets the event as JSON by POST.")
    events: Annotated[list[Text], AfterValidator(_known_events)] = Field(
        default=[], description="Kinds of events to be told of. Absent: all."
    )
    timeout: PositiveDuration = _set(_HOOK, "timeout", "A hook that takes longer is ended.")
    environment: dict[VariableName, EnvironmentValue] = Field(
        default={}, repr=False, description="Environment variables of the command: a token, say. It sees no others."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.command) == bool(self.webhook):
            raise Wrong("expected either command or webhook", key="command")
        if self.webhook and self.environment:
            raise Wrong("is for a command; a webhook has no environment", key="environment")
        return self


class HostKeys(Keys):
    """Limits of all datasites together; 0 means none."""

    max_memory_usage_gb: Amount = _set(_HOST, "max_memory_usage_gb", "Memory, in GB; 0: no limit.")
    max_cpu_usage_percent: Amount = _set(_HOST, "max_cpu_usage_percent", "CPU, where 100 is one core; 0: no limit.")
    max_concurrent_training_sessions: Tally = _set(
        _HOST,
        "max_concurrent_training_sessions",
        "Trainings that run at the same time, shared out evenly; 0: no limit.",
    )
    disk_space_threshold_gb: Amount = _set(
        _HOST, "disk_space_threshold_gb", "Free disk space that every datasite keeps, in GB; 0: no limit."
    )
    network_bandwidth_limit_mbps: Amount = _set(
        _HOST, "network_bandwidth_limit_mbps", "Network, in Mbit/s, shared out evenly; 0: no limit."
    )


class FleetKeys(Keys):
    """What stands at the top, apart from the datasites."""

    version: Version = Field(description="The version of this format: 1.")
    name: Text = Field(default="fleet", description="The fleet's name, for people.")
    state_dir: Folder = Field(
        default=".fleet", description="Identities, databases, secrets and sockets. Relative to this file."
    )
    log_dir: Folder = Field(default="logs", description="One log per datasite, and fleet.log. Relative to this file.")
    dashboard: Dashboard | None = Field(
        default=None, description="embedded, or absent: then every datasite names a dashboard_url."
    )
    shutdown_grace: Duration = Field(default=_GRACE, description="Time from SIGTERM to SIGKILL at a stop.")
    startup: StartupKeys = Field(default_factory=StartupKeys, description="How the datasites are started.")
    host: HostKeys = Field(default_factory=HostKeys, description="Limits of all datasites together; 0 means none.")
    on_event: list[HookKeys] = Field(default=[], max_length=32, description="Commands and webhooks told of events.")


class FleetFile(FleetKeys):
    """A fleet of PySyft datasites on one machine."""

    defaults: DefaultKeys = Field(
        default_factory=DefaultKeys, description="Settings of every datasite that does not say otherwise."
    )
    datasites: list[DatasiteKeys] = Field(
        min_length=1, max_length=MOST_DATASITES, description="The datasites, one per production line."
    )


def json_schema() -> dict[str, Any]:
    """The schema of the whole file, draft 2020-12; every key has its description."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **FleetFile.model_json_schema(),
        "title": "fleet.yaml",
    }
