"""The dashboard's requests and answers, as pydantic models.

Unknown keys are ignored, so that newer datasites can talk to an older dashboard. Every stored number and text has a
limit, which ``mend`` also applies to the database. Reads no database and no clock.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from central.dashboard.liveness import FactoryStatus

MAX_JSON_DEPTH = 16
MAX_CAPABILITIES = 4096
"""Bytes of the capabilities as compact JSON."""
MAX_EXPERIMENTS = 4096
"""Bytes of the names of experiments that are stored. Of a longer list, only the number is."""
MOST_PERCENT = 1_000_000.0
"""More than any host can report: some count 100 for each of hundreds of cores."""
MOST_MILLISECONDS = 1e9
_LARGEST = 2**53
"""Every JSON reader, including JavaScript's, reads numbers up to this one exactly."""


def compact(value: Any) -> bytes:
    """JSON for storage and answers. Raises ValueError for NaN, infinity and surrogates."""
    return _ENCODER.encode(value).encode()


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("control characters and surrounding spaces are not allowed")
    return text


def _one_segment(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise ValueError("'/', '.' and '..' are not allowed, because GET /factories/{name} contains the name")
    return name


def _legible(name: Any) -> Any:
    """Users choose the names of experiments. A strange name must not make a heartbeat invalid."""
    if not isinstance(name, str) or name.isprintable():
        return name
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in name)


def _iso8601(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected ISO 8601, such as 2025-01-31T12:00:00+00:00") from error
    return text


def _storable(value: Any) -> Any:
    """``value``, if it is JSON of limited depth and size, with numbers in range and valid characters.

    Checked level by level, because with recursion the sender would choose the depth.
    """
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        if any(isinstance(node, int | float) and abs(node) > _LARGEST for node in level):
            raise ValueError(f"a number is larger than {_LARGEST}")
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    if (size := len(compact(value))) > MAX_CAPABILITIES:
        raise ValueError(f"expected at most {MAX_CAPABILITIES} bytes as JSON, not {size}")
    return value


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


Word = Annotated[str, StringConstraints(max_length=64), AfterValidator(_printable)]
Place = Annotated[str, StringConstraints(max_length=128), AfterValidator(_printable)]
Host = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
ShownName = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_printable)]
FactoryName = Annotated[ShownName, AfterValidator(_one_segment)]
Port = Annotated[int, Field(ge=1, le=65535)]
Timestamp = Annotated[str, StringConstraints(max_length=64), AfterValidator(_printable), AfterValidator(_iso8601)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Names = Annotated[
    list[Annotated[str, BeforeValidator(_legible), StringConstraints(max_length=256)]], Field(max_length=1000)
]
Experiments = Count | Names
Percent = Annotated[float, Field(ge=0, le=MOST_PERCENT, allow_inf_nan=False)]
Milliseconds = Annotated[float, Field(ge=0, le=MOST_MILLISECONDS, allow_inf_nan=False)]
Capabilities = Annotated[dict[str, JsonValue], BeforeValidator(_storable)]


def experiments_kept(experiments: int | list[str]) -> bytes:
    """The names as JSON, or only their number if the names are too long."""
    kept = compact(experiments)
    return kept if isinstance(experiments, int) or len(kept) <= MAX_EXPERIMENTS else compact(len(experiments))


class Registration(BaseModel):
    """``POST /register_factory``."""

    factory_name: FactoryName
    factory_hostname: Host
    factory_port: Port
    device: Word = ""
    status: Word = "running"
    capabilities: Capabilities = Field(default_factory=dict)
    region: Place = ""
    location: Place = ""


class CurrentLoad(BaseModel):
    """Percent, and milliseconds for the latency. None: the datasite could not measure it."""

    cpu_usage: Percent | None = None
    memory_usage: Percent | None = None
    disk_usage: Percent | None = None
    network_latency: Milliseconds | None = None


class Heartbeat(BaseModel):
    """``POST /heartbeat``. Only the name is required. A missing or null value leaves the stored value unchanged."""

    factory_name: FactoryName
    hostname: Host | None = None
    port: Port | None = None
    device: Word | None = None
    timestamp: Timestamp | None = None
    status: Word | None = None
    current_load: CurrentLoad | None = None
    active_experiments: Experiments | None = None
    last_training_completion: Word | None = None
    region: Place | None = None
    location: Place | None = None


class RecentLoad(BaseModel):
    """CPU percent, one value for each ``step_s`` seconds, oldest first. The last value belongs to the step that began
    at ``until`` (POSIX seconds). None: no heartbeat had a value."""

    until: int
    step_s: int
    cpu: list[int | None]


class FactoryView(BaseModel):
    """One factory, as ``GET /factories`` shows it.

    ``status`` follows from the server's clock. ``reported_status``, ``timestamp`` and ``last_training_completion`` are
    as the factory sent them. ``last_seen`` is its last heartbeat or registration, ``silence_s`` the seconds since then.
    ``status_since`` is when ``status`` began. None means unknown; address and first times are unknown only if the
    database was damaged.
    """

    model_config = ConfigDict(frozen=True)

    factory_name: str
    status: FactoryStatus
    status_since: datetime
    reported_status: str
    hostname: str | None
    port: int | None
    device: str
    region: str
    location: str
    capabilities: dict[str, JsonValue]
    registered_at: datetime | None
    last_seen: datetime | None
    last_heartbeat: datetime | None
    timestamp: str | None
    load: CurrentLoad | None
    recent_load: RecentLoad
    active_experiments: int | list[str] | None
    last_training_completion: str | None
    silence_s: float


class FactoryList(BaseModel):
    """With ``now`` and the thresholds (seconds) a reader can use the server's clock instead of its own."""

    now: datetime
    late_after: float
    offline_after: float
    factories: list[FactoryView]


class StatusChange(BaseModel):
    """The factory has ``status`` from ``at`` on."""

    at: datetime
    status: FactoryStatus


class LoadPoint(BaseModel):
    """Means over the step that began ``at``. None: no heartbeat had a value."""

    at: datetime
    beats: int
    cpu_usage: float | None
    memory_usage: float | None
    disk_usage: float | None
    network_latency: float | None


class LoadSeries(BaseModel):
    """Points of ``step_s`` seconds, oldest first, as far back as ``kept_s`` seconds."""

    step_s: int
    kept_s: int
    points: list[LoadPoint]


class History(BaseModel):
    """``GET /factories/{name}/history``: status changes, newest first, and the load, in coarser steps further back."""

    factory_name: str
    changes: list[StatusChange]
    load: list[LoadSeries]


class Accepted(BaseModel):
    """The answer to a registration (``registered``) or a heartbeat (``ok``)."""

    status: str
    factory_name: str
    received_at: datetime
