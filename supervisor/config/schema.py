"""The keys of ``fleet.yaml`` as pydantic models: names, readers and descriptions, and the JSON schema made from them.

The defaults are in ``supervisor.spec``. Checks across mappings are in ``relations``.
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

from fleet_common.contract import TrainingBounds
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

_REFERENCE = {
    "type": "string",
    "pattern": r"\$\{(env|file|credential):",
    "description": "Replaced when the file is read.",
}
_LINE = {"type": "string", "minLength": 1}
_SECONDS = {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)? ?(ms|s|m|h|d))+$"}
_BYTES = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(B|[kKMGT]B|[KMGT]iB)$"}
_NAME = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"}
_GPU_UUID = {"type": "string", "pattern": "^(GPU|MIG|MIG-GPU)-[0-9A-Fa-f]"}
_SETTING: dict[str, Any] = {"type": ["string", "number", "boolean"]}
_GPU_INDEX = {"type": "integer", "minimum": 0, "maximum": 999}


def _any(*schemas: dict[str, Any]) -> WithJsonSchema:
    """For editors: one of ``schemas``, or a reference in its place."""
    return WithJsonSchema({"anyOf": [*schemas, _REFERENCE]})


def _numbers(kind: str, low: float, high: float = math.inf) -> dict[str, Any]:
    return {"type": kind, "minimum": low} | ({"maximum": high} if math.isfinite(high) else {})


Text = Annotated[str, BeforeValidator(values.text), WithJsonSchema(_LINE)]
OptionalText = Annotated[str, BeforeValidator(values.optional_text), WithJsonSchema({"type": "string"})]
CodeHash = Annotated[
    str, BeforeValidator(values.code_hash), _any({"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"})
]
Moment = Annotated[
    str, BeforeValidator(values.moment), _any({"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}"})
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
    WithJsonSchema({"const": "embedded", "description": "Fleet runs a dashboard itself on this machine."}),
]


# Variables that fleet or PySyft sets, and what to use instead.
_OWNED = (
    (r"SYFT_TEMP_ROOT", "use state_dir"),
    (r"DEFAULT_ROOT_EMAIL", "use admin.email"),
    (r"DEFAULT_ROOT_USERNAME", "use admin.name"),
    (r"DEFAULT_ROOT_PASSWORD", "use admin.password"),
    (r"SERVER_NAME", "use name"),
    (r"SERVER_(UID|PRIVATE_KEY)", "fleet generates one for each datasite and keeps it in state_dir"),
    (r"SERVER_(PORT|HOST)", "use port and hostname"),
    (r"SERVER_.*|SYFT_.*", "fleet configures PySyft from the other keys"),
    (r"(CUDA|NVIDIA|ROCR|HIP)_VISIBLE_DEVICES|CUDA_DEVICE_ORDER", "use gpu"),
    (r"(OMP|MKL|OPENBLAS|NUMEXPR|VECLIB|BLIS)_NUM_THREADS|VECLIB_MAXIMUM_THREADS", "use resources.threads"),
    (r"FLEET_.*", "names that begin with FLEET_ are reserved for fleet"),
    (r"NOTIFY_SOCKET|WATCHDOG_(USEC|PID)", "systemd talks to fleet, not to a datasite"),
)


def _variable_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise Wrong("expected the name of an environment variable: letters, digits and _, with no digit first")
    return name


def _environment_name(name: str) -> str:
    _variable_name(name)
    for pattern, instead in _OWNED:
        if re.fullmatch(pattern, name):
            raise Wrong(f"this variable cannot be set under environment; {instead}")
    return name


EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
VariableName = Annotated[str, AfterValidator(_variable_name)]


def _set(source: object, key: str, description: str) -> Any:
    """A key with the default of ``source``."""
    return Field(default=getattr(source, key), description=description)


class Keys(BaseModel):
    """A mapping of the file. It has these keys and no others."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


_ADMIN, _RESTART, _PROBES, _GPU = Admin(), RestartPolicy(), ProbePolicy(), GpuRequest()
_RESOURCES, _CAPABILITIES, _DASHBOARD = Resources(), Capabilities(), DashboardSpec()
_ACCESS = Access()
_MOCK, _BOUNDS = Mock(), TrainingBounds()
_DATASITE = DatasiteSpec("", 0)
_STARTUP, _HOOK, _HOST = StartupPolicy(), Hook(), HostLimits()
_GRACE: Any = next(field.default for field in fields(FleetConfig) if field.name == "shutdown_grace")


class AdminKeys(Keys):
    """The datasite's administrator."""

    email: Email = _set(_ADMIN, "email", "The administrator's login.")
    name: Text = _set(_ADMIN, "name", "The administrator's display name.")
    password: Password | None = Field(
        default=None,
        repr=False,
        description="At least 8 characters, best as ${env:NAME} or ${file:path}. Default: fleet generates a strong one "
        "at the first start; fleet credentials shows it. A password that is changed later is never reset.",
    )


class RestartKeys(Keys):
    """How fleet restarts a crashed datasite."""

    mode: Mode = _set(_RESTART, "mode", "Whether fleet restarts a datasite that exits by itself.")
    backoff: PositiveDuration = _set(
        _RESTART, "backoff", "The wait before the second restart in a row. It doubles with each further restart."
    )
    backoff_max: PositiveDuration = _set(_RESTART, "backoff_max", "The longest wait between restarts.")
    jitter: Share = _set(_RESTART, "jitter", "Each wait is lengthened at random, by up to this share.")
    stable_after: Duration = _set(
        _RESTART, "stable_after", "When a datasite is ready for this long, its earlier crashes no longer count."
    )
    max_crashes: Tally = _set(_RESTART, "max_crashes", "More crashes than this within window quarantine the datasite.")
    window: PositiveDuration = _set(_RESTART, "window", "The time within which max_crashes counts.")
    quarantine_retry: Duration = _set(
        _RESTART, "quarantine_retry", "The wait before fleet tries a quarantined datasite again. 0: never by itself."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.backoff_max < self.backoff:
            raise Wrong(f"expected at least backoff, which is {self.backoff:g} s", key="backoff_max")
        return self


def _probe(probe: ProbeTiming, key: str) -> Any:
    descriptions = {
        "period": "Time from one probe to the next.",
        "timeout": "A probe without an answer after this time has failed.",
        "failure_threshold": "The probe fails after this many failures in a row.",
        "success_threshold": "The probe succeeds again after this many successes in a row.",
    }
    return _set(probe, key, descriptions[key])


class StartupProbeKeys(Keys):
    """Whether the datasite has started. The other two probes wait for it. A failure replaces the process."""

    period: PositiveDuration = _probe(_PROBES.startup, "period")
    timeout: PositiveDuration = _probe(_PROBES.startup, "timeout")
    failure_threshold: Limit = Field(
        default=_PROBES.startup.failure_threshold,
        description="A start fails when it takes longer than this many periods.",
    )
    success_threshold: Once = _probe(_PROBES.startup, "success_threshold")


class ReadinessKeys(Keys):
    """Whether the datasite is shown as ready. A failure changes nothing else."""

    period: PositiveDuration = _probe(_PROBES.readiness, "period")
    timeout: PositiveDuration = _probe(_PROBES.readiness, "timeout")
    failure_threshold: Count = _probe(_PROBES.readiness, "failure_threshold")
    success_threshold: Count = _probe(_PROBES.readiness, "success_threshold")


class LivenessKeys(Keys):
    """Whether the datasite still answers at all. A failure replaces the process."""

    period: PositiveDuration = _probe(_PROBES.liveness, "period")
    timeout: PositiveDuration = _probe(_PROBES.liveness, "timeout")
    failure_threshold: Count = _probe(_PROBES.liveness, "failure_threshold")
    success_threshold: Once = _probe(_PROBES.liveness, "success_threshold")


class ProbeKeys(Keys):
    """Requests of the supervisor to the datasite's own HTTP."""

    startup: StartupProbeKeys = Field(
        default_factory=StartupProbeKeys, description="Whether the datasite has started. The other two wait for it."
    )
    readiness: ReadinessKeys = Field(
        default_factory=ReadinessKeys, description="Whether the datasite is shown as ready."
    )
    liveness: LivenessKeys = Field(
        default_factory=LivenessKeys,
        description="Whether the datasite still answers at all. A failure replaces the process.",
    )


def _distinct(devices: list[str]) -> list[str]:
    if not devices or len(set(devices)) < len(devices):
        raise Wrong("expected at least one GPU, and no GPU twice")
    return devices


Device = Annotated[str, BeforeValidator(values.device), _any(_GPU_INDEX, _GPU_UUID)]
Devices = Annotated[
    list[Device], AfterValidator(_distinct), Field(json_schema_extra={"minItems": 1, "uniqueItems": True})
]


class GpuKeys(Keys):
    """A request for GPUs, as a mapping."""

    devices: Devices = Field(default=[], description="Exactly these GPUs. Default: any.")
    count: Count = _set(_GPU, "count", "How many GPUs. Fleet takes whichever are free.")
    memory: Size = Field(
        default=_GPU.memory_bytes, description="GPU memory that must be free, such as 8GiB. 0: no minimum."
    )
    exclusive: Flag = _set(_GPU, "exclusive", "Whether no other datasite may use these GPUs.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.devices and "count" in self.model_fields_set:
            raise Wrong("expected either devices or count", key="count")
        return self


GpuWord = Annotated[str, BeforeValidator(values.gpu_word), _any({"enum": ["auto", "none"]}, _GPU_INDEX, _GPU_UUID)]


def _form(value: Any) -> str:
    """The form of a key's value. pydantic also adds this word to the place of an error."""
    return "(word)" if isinstance(value, Scalar | str) else "(list)" if isinstance(value, list) else "(keys)"


Gpu = Annotated[
    Annotated[GpuWord, Tag("(word)")] | Annotated[Devices, Tag("(list)")] | Annotated[GpuKeys, Tag("(keys)")],
    Discriminator(_form),
]


class ResourceKeys(Keys):
    """Limits of one datasite. 0 means no limit."""

    max_memory_usage_gb: Amount = _set(_RESOURCES, "max_memory_usage_gb", "Memory, in GB. 0: no limit.")
    max_cpu_usage_percent: Amount = _set(
        _RESOURCES, "max_cpu_usage_percent", "CPU, where 100 is one core. 0: no limit."
    )
    max_concurrent_training_sessions: Count = _set(
        _RESOURCES, "max_concurrent_training_sessions", "How many trainings run at the same time. Others wait."
    )
    disk_space_threshold_gb: Amount = _set(
        _RESOURCES, "disk_space_threshold_gb", "Free disk space to keep, in GB. 0: no limit."
    )
    network_bandwidth_limit_mbps: Amount = _set(
        _RESOURCES, "network_bandwidth_limit_mbps", "Network, in Mbit/s. 0: no limit."
    )
    threads: Tally = _set(_RESOURCES, "threads", "OMP, MKL and torch threads. 0: the datasite's share of the cores.")


class AccessKeys(Keys):
    """What callers without an account may do."""

    allow_guests: Flag = _set(
        _ACCESS, "allow_guests", "Whether callers without an account may read names, descriptions and mocks."
    )
    allow_registration: Flag = _set(
        _ACCESS, "allow_registration", "Whether anybody may create an account, as a data scientist."
    )
    max_upload_gb: Uploads = _set(_ACCESS, "max_upload_gb", "The largest request body that a user may send, in GB.")


class CapabilityKeys(Keys):
    """What the datasite tells the dashboard when it registers."""

    max_concurrent_training: Count | None = Field(
        default=None, description="Trainings at the same time. Default: resources.max_concurrent_training_sessions."
    )
    supported_models: list[Text] = Field(default=list(_CAPABILITIES.supported_models), description="Kinds of models.")
    data_types: list[Text] = Field(default=list(_CAPABILITIES.data_types), description="Kinds of data.")
    security_level: Text = _set(_CAPABILITIES, "security_level", "The security level that the dashboard shows.")


MockWord = Annotated[
    str, BeforeValidator(values.choice(("synthetic", "empty"))), _any({"enum": ["synthetic", "empty"]})
]


class MockKeys(Keys):
    """What everybody sees in place of the data, as a mapping. Either path or rows."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1, "maxProperties": 1})

    path: DataFile | None = Field(
        default=None, description="The owner's own mock, a file of the same kind as the data."
    )
    rows: MockRows = Field(
        default=_MOCK.rows,
        description="A synthetic mock with this many rows. same: as many as the data, which reveals their number.",
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


class RangeKeys(Keys):
    """The least and the most that is allowed."""

    min: Amount = Field(description="The least.")
    max: Amount = Field(description="The most.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max < self.min:
            raise Wrong(f"expected at least min, which is {self.min:g}", key="max")
        return self


def _range(key: str, description: str) -> Any:
    low, high = getattr(_BOUNDS, key)
    return Field(default_factory=lambda: RangeKeys.model_construct(min=low, max=high), description=description)


class BoundsKeys(Keys):
    """What trainings on a dataset may do, and what may leave."""

    enforce: Flag = _set(_BOUNDS, "enforce", "Whether these bounds hold. false: the scientist may do anything.")
    min_samples: Limit = _set(_BOUNDS, "min_samples", "A training on fewer rows is refused.")
    target: OptionalText = _set(_BOUNDS, "target", "The only column of a table to learn. Default: any.")
    features: list[Text] = Field(default=[], description="The only columns of a table to learn from. Default: any.")
    batch_size: RangeKeys = _range("batch_size", "Rows of a step.")
    learning_rate: RangeKeys = _range("learning_rate", "The learning rate.")
    epochs: RangeKeys = _range("epochs", "How often a training goes through the data.")
    steps: RangeKeys = _range("steps", "Steps of a training. A single one shows sums over rows.")
    clip: Amount = _set(_BOUNDS, "clip", "The largest L2 norm of the change of the parameters. 0: any.")
    noise: Share = _set(
        _BOUNDS, "noise", "Random noise on what changed, as a share of the largest change in its tensor. 0: none."
    )
    exact_metrics: Flag = _set(_BOUNDS, "exact_metrics", "Whether metrics leave with all their digits, instead of two.")


class DatasetKeys(Keys):
    """A file of this machine that a datasite offers to the centre."""

    name: DatasetName = Field(description="The dataset's name at the centre.")
    path: DataFile = Field(
        description="A CSV, Parquet or NPZ file, relative to this file. The datasite reads it again when it changes."
    )
    mock: MockRule = Field(
        default=_MOCK.rule,
        description="What everybody sees in place of the data: synthetic (random values, independent of the data), "
        "empty, or path or rows.",
    )
    description: OptionalText = Field(default="", description="The dataset's description at the centre.")
    training_bounds: BoundsKeys | None = Field(
        default=None, description="Bounds for trainings on this dataset. They replace the datasite's, key by key."
    )

    @model_validator(mode="after")
    def _same_kind(self) -> Self:
        kind = self.path.rpartition(".")[2].lower()
        if isinstance(self.mock, MockKeys) and self.mock.path and not self.mock.path.lower().endswith(f".{kind}"):
            raise Wrong(f"expected a .{kind} file, like the data", key="mock")
        return self


Asset = Annotated[
    Annotated[Text, Tag("(word)")]
    | Annotated[list[Text], Tag("(list)"), Field(json_schema_extra={"minItems": 1, "uniqueItems": True})],
    Discriminator(_form),
]
Setting = Annotated[Any, BeforeValidator(values.setting), WithJsonSchema(_SETTING)]
Settings = Annotated[
    Annotated[Setting, Tag("(word)")]
    | Annotated[list[Setting], Tag("(list)"), Field(json_schema_extra={"minItems": 1})],
    Discriminator(_form),
]


class ApprovalKeys(Keys):
    """A function that may run on one dataset without a request to the owner."""

    hash: CodeHash = Field(description="The SHA-256 of the function's source: sha256:…")
    dataset: Text = Field(description="The name of the one dataset that the function may read.")
    asset: Asset = Field(default=[], description="The only assets of the dataset that it may read. Default: all.")
    by: Email = Field(default="", description="The e-mail of the only user who may run it. Default: every user.")
    config: dict[str, Settings] = Field(
        default={},
        description="The values that the function's configuration may have: key: value, or key: [value, value].",
    )
    runs: Limit = Field(default=0, description="How often it may run. Default: no limit.")
    until: Moment = Field(
        default="", description="The last day, such as 2027-03-31, or a time such as 2027-03-31T18:00. Default: no end."
    )


def _for_a_dataset(value: Any) -> Any:
    """An entry that is a bare hash, as fleet.yaml had it before, would approve the function for every dataset."""
    if isinstance(value, Scalar) and not value.broken:
        shown = value.text if re.fullmatch(r"sha256:[0-9a-fA-F]{64}", value.text) else "sha256:…"
        message = f"an approval needs the dataset that the code may read; write {{hash: {shown}, dataset: NAME}}"
        raise Wrong(message, value)
    return value


def _each_approval_once(approvals: list[ApprovalKeys]) -> list[ApprovalKeys]:
    told = [(one.hash, one.dataset, str(one.asset), one.by) for one in approvals]
    if twice := next((one for one in told if told.count(one) > 1), None):
        first, second = [number for number, one in enumerate(told, 1) if one == twice][:2]
        raise Wrong(f"entries {first} and {second} approve the same code for the same data and user; keep one")
    return approvals


Approvals = Annotated[
    list[Annotated[ApprovalKeys, BeforeValidator(_for_a_dataset)]], AfterValidator(_each_approval_once)
]


def _each_name_once(datasets: list[DatasetKeys]) -> list[DatasetKeys]:
    names = [one.name for one in datasets]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        first, second = [number for number, name in enumerate(names, 1) if name == twice][:2]
        raise Wrong(f"datasets {first} and {second} have the same name; rename one")
    return datasets


Datasets = Annotated[list[DatasetKeys], AfterValidator(_each_name_once)]


class SharedKeys(Keys):
    """The keys that a datasite and ``defaults`` both have."""

    hostname: Host = _set(_DATASITE, "hostname", "Address to listen on. 0.0.0.0: every address of the machine.")
    advertise: ReachableHost | None = Field(
        default=None,
        description="The host name at which others reach the datasite. Default: hostname, or the machine's full name "
        "if hostname is 0.0.0.0 or ::.",
    )
    dashboard_url: Url | None = Field(
        default=None, description="The dashboard to register with. Default: the embedded one."
    )
    heartbeat_url: Url | None = Field(default=None, description="Where heartbeats go. Default: dashboard_url.")
    heartbeat_interval: PositiveDuration = _set(_DATASITE, "heartbeat_interval", "Time from one heartbeat to the next.")
    priority: Priority = _set(_DATASITE, "priority", "Datasites with a higher number start first.")
    dev_mode: Flag = _set(_DATASITE, "dev_mode", "PySyft's development mode. Not for production.")
    reset: Flag = _set(_DATASITE, "reset", "Delete this datasite's data at fleet up, after a question.")
    verbose: Flag = _set(_DATASITE, "verbose", "Also log to the console.")
    association_request_auto_approval: Flag = _set(
        _DATASITE, "association_request_auto_approval", "Whether other PySyft servers may connect without approval."
    )
    admin: AdminKeys = Field(default_factory=AdminKeys, description="The datasite's administrator.")
    restart: RestartKeys = Field(default_factory=RestartKeys, description="How fleet restarts a crashed datasite.")
    probes: ProbeKeys = Field(
        default_factory=ProbeKeys, description="Requests of the supervisor to the datasite's own HTTP."
    )
    gpu: Gpu = Field(
        default=_GPU.mode,
        description="auto, none, a GPU's index or UUID, a list of these, or a mapping with count, memory, exclusive.",
    )
    resources: ResourceKeys = Field(default_factory=ResourceKeys, description="Limits. 0 means no limit.")
    access: AccessKeys = Field(default_factory=AccessKeys, description="What callers without an account may do.")
    capabilities: CapabilityKeys = Field(
        default_factory=CapabilityKeys, description="What the datasite tells the dashboard when it registers."
    )
    region: OptionalText = _set(_DATASITE, "region", "Where the plant is. The dashboard groups datasites by it.")
    location: OptionalText = _set(_DATASITE, "location", "Where the line is in the plant, for people.")
    approved_code: Approvals = Field(
        default=[],
        description="Functions that may run without a separate approval, each for one dataset: {hash: sha256:…, "
        "dataset: NAME}.",
    )
    datasets: Datasets = Field(
        default=[], max_length=MOST_DATASETS, description="Files of this machine, offered to the centre with a mock."
    )
    training_bounds: BoundsKeys = Field(
        default_factory=BoundsKeys,
        description="Bounds for trainings on datasets that have none of their own, uploaded ones too.",
    )
    environment: dict[EnvironmentName, EnvironmentValue] = Field(
        default={}, repr=False, description="Environment variables of this datasite, passed on as written."
    )


class DefaultKeys(SharedKeys):
    """Settings for all datasites. A datasite's own settings replace them, key by key."""


class DatasiteKeys(SharedKeys):
    """One datasite, for one production line."""

    name: Name = Field(description=f"The datasite's name: {values.NAME_RULE}.")
    port: Port = Field(description="The TCP port to listen on.")


class DashboardKeys(Keys):
    """The embedded dashboard, as a mapping."""

    mode: Embedded = Field(default="embedded", description="Fleet runs a dashboard itself on this machine.")
    hostname: Host = _set(_DASHBOARD, "hostname", "Address to listen on.")
    port: Port = _set(_DASHBOARD, "port", "The TCP port to listen on.")
    late_after: PositiveDuration = _set(
        _DASHBOARD, "late_after", "A datasite without a heartbeat for this long is late."
    )
    offline_after: PositiveDuration = _set(
        _DASHBOARD, "offline_after", "A datasite without a heartbeat for this long is offline."
    )

    @model_validator(mode="after")
    def _late_before_offline(self) -> Self:
        if self.offline_after < self.late_after:
            raise Wrong(
                "expected at least late_after, because a datasite is late before it is offline", key="offline_after"
            )
        return self


Dashboard = Annotated[
    Annotated[Embedded, Tag("(word)")] | Annotated[DashboardKeys, Tag("(keys)")],
    Discriminator(lambda value: "(keys)" if isinstance(value, dict) else "(word)"),
]


class StartupKeys(Keys):
    """How fleet starts the datasites."""

    parallel: Tally = _set(
        _STARTUP, "parallel", "How many datasites start at the same time. 0: twice the cores, at least 4."
    )
    stagger: Duration = _set(_STARTUP, "stagger", "The shortest time from one start to the next.")


def _known_events(names: list[str]) -> list[str]:
    known = [kind.value for kind in EventKind]
    if unknown := [name for name in names if name not in known]:
        raise Wrong(f"expected kinds of events, not {', '.join(unknown)}; known: {', '.join(known)}")
    return names


class HookKeys(Keys):
    """A command or a webhook that fleet notifies of events."""

    command: list[Text] = Field(
        default=[],
        description="Program and arguments, run without a shell in the folder of fleet.yaml. "
        "Standard input is the event as JSON.",
    )
    webhook: Webhook = Field(default=_HOOK.webhook, repr=False, description="A URL. Fleet POSTs the event as JSON.")
    events: Annotated[list[Text], AfterValidator(_known_events)] = Field(
        default=[], description="The kinds of events to send. Default: all."
    )
    timeout: PositiveDuration = _set(_HOOK, "timeout", "Fleet stops a hook that takes longer than this.")
    environment: dict[VariableName, EnvironmentValue] = Field(
        default={}, repr=False, description="Environment variables of the command, such as a token. It gets no others."
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.command) == bool(self.webhook):
            raise Wrong("expected either command or webhook", key="command")
        if self.webhook and self.environment:
            raise Wrong("a webhook has no environment; remove this key", key="environment")
        return self


class HostKeys(Keys):
    """Limits for all datasites together. 0 means no limit."""

    max_memory_usage_gb: Amount = _set(_HOST, "max_memory_usage_gb", "Memory, in GB. 0: no limit.")
    max_cpu_usage_percent: Amount = _set(_HOST, "max_cpu_usage_percent", "CPU, where 100 is one core. 0: no limit.")
    max_concurrent_training_sessions: Tally = _set(
        _HOST,
        "max_concurrent_training_sessions",
        "How many trainings run at the same time, divided evenly among the datasites. 0: no limit.",
    )
    disk_space_threshold_gb: Amount = _set(
        _HOST, "disk_space_threshold_gb", "Free disk space that every datasite keeps, in GB. 0: no limit."
    )
    network_bandwidth_limit_mbps: Amount = _set(
        _HOST,
        "network_bandwidth_limit_mbps",
        "Network, in Mbit/s, divided evenly among the datasites. 0: no limit.",
    )


class FleetKeys(Keys):
    """The keys at the top level, apart from the datasites."""

    version: Version = Field(description="The version of this format: 1.")
    name: Text = Field(default="fleet", description="The fleet's name, for people.")
    state_dir: Folder = Field(
        default=".fleet", description="The folder of identities, databases, secrets and sockets, relative to this file."
    )
    log_dir: Folder = Field(
        default="logs", description="The folder of the logs: fleet.log and one per datasite. Relative to this file."
    )
    dashboard: Dashboard | None = Field(
        default=None, description="embedded. Without this key, every datasite needs a dashboard_url."
    )
    shutdown_grace: Duration = Field(default=_GRACE, description="Time from SIGTERM to SIGKILL when a datasite stops.")
    startup: StartupKeys = Field(default_factory=StartupKeys, description="How fleet starts the datasites.")
    host: HostKeys = Field(default_factory=HostKeys, description="Limits for all datasites together. 0 means no limit.")
    on_event: list[HookKeys] = Field(
        default=[], max_length=32, description="Commands and webhooks that fleet notifies of events."
    )


class FleetFile(FleetKeys):
    """A fleet of PySyft datasites on one machine."""

    defaults: DefaultKeys = Field(
        default_factory=DefaultKeys,
        description="Settings for all datasites. A datasite's own settings replace them, key by key.",
    )
    datasites: list[DatasiteKeys] = Field(
        min_length=1, max_length=MOST_DATASITES, description="The datasites, one per production line."
    )


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the whole file. Every key has a description."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **FleetFile.model_json_schema(),
        "title": "fleet.yaml",
    }
