"""What crosses the dashboard's wire, as pydantic models: what may come in, and the shape of what goes out.

Extra keys are passed over, so that newer datasites can talk to an older dashboard; everything kept is bounded in
size. Nothing here touches the database or a clock.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, StringConstraints

from central.dashboard.liveness import FactoryStatus

MAX_JSON_DEPTH = 16


def _printable(text: str) -> str:
    if not text.isprintable() or text != text.strip():
        raise ValueError("control characters and surrounding spaces are not allowed")
    return text


def _one_segment(name: str) -> str:
    if "/" in name or name in (".", ".."):
        raise ValueError("'/', '.' and '..' are not allowed: the name is one segment of GET /factories/{name}")
    return name


def _iso8601(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"{error}; expected ISO 8601, such as 2025-01-31T12:00:00+00:00") from error
    return text


def _storable(value: Any) -> Any:
    """What can be kept and shown again: JSON of bounded depth, finite numbers and whole characters.

    The depth is looked at level by level: recursion would let the sender choose how deep we go.
    """
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [child for node in level for child in _children(node)]
    if level:
        raise ValueError(f"nested deeper than {MAX_JSON_DEPTH} levels")
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # ValueError: NaN, infinite, half a character
    return value


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


Word = Annotated[str, StringConstraints(max_length=64), AfterValidator(_printable)]
Place = Annotated[str, StringConstraints(max_length=128), AfterValidator(_printable)]
Host = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
FactoryName = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(_printable), AfterValidator(_one_segment)
]
Port = Annotated[int, Field(ge=1, le=65535)]
Timestamp = Annotated[str, StringConstraints(max_length=64), AfterValidator(_iso8601)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Names = Annotated[list[Annotated[str, StringConstraints(max_length=256)]], Field(max_length=1000)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Registration(BaseModel):
    """``POST /register_factory``."""

    factory_name: FactoryName
    factory_hostname: Host
    factory_port: Port
    device: Word = ""
    status: Word = "running"
    capabilities: Annotated[dict[str, JsonValue], BeforeValidator(_storable)] = Field(default_factory=dict)
    region: Place = ""
    location: Place = ""


class CurrentLoad(BaseModel):
    """Percent, and milliseconds for the latency; None where the datasite could not measure."""

    cpu_usage: Number | None = None
    memory_usage: Number | None = None
    disk_usage: Number | None = None
    network_latency: Number | None = None


class Heartbeat(BaseModel):
    """``POST /heartbeat``. Only the name is required; what is absent or null leaves what is known as it is."""

    factory_name: FactoryName
    hostname: Host | None = None
    port: Port | None = None
    device: Word | None = None
    timestamp: Timestamp | None = None
    status: Word | None = None
    current_load: CurrentLoad | None = None
    active_experiments: Count | Names | None = None
    last_training_completion: Word | None = None
    region: Place | None = None
    location: Place | None = None


class RecentLoad(BaseModel):
    """CPU percent, one value each ``step_s`` seconds, oldest first; the last one is of the step that began at
    ``until`` (POSIX seconds). None: no beat told it."""

    until: int
    step_s: int
    cpu: list[int | None]


class FactoryView(BaseModel):
    """One factory, as ``GET /factories`` shows it.

    ``status`` is judged by the server's clock; ``reported_status``, ``timestamp`` and ``last_training_completion``
    are the factory's own words. ``last_seen`` is its last beat or registration, ``silence_s`` the seconds since;
    ``status_since`` is when ``status`` came about.
    """

    model_config = ConfigDict(frozen=True)

    factory_name: str
    status: FactoryStatus
    status_since: datetime
    reported_status: str
    hostname: str
    port: int
    device: str
    region: str
    location: str
    capabilities: dict[str, JsonValue]
    registered_at: datetime
    last_seen: datetime
    last_heartbeat: datetime | None
    timestamp: str | None
    load: CurrentLoad | None
    recent_load: RecentLoad
    active_experiments: int | list[str] | None
    last_training_completion: str | None
    silence_s: float


class FactoryList(BaseModel):
    """``now`` and the thresholds (seconds) let a reader judge by the server's clock, not by its own."""

    now: datetime
    late_after: float
    offline_after: float
    factories: list[FactoryView]


class StatusChange(BaseModel):
    """``status`` from ``at`` on."""

    at: datetime
    status: FactoryStatus


class LoadPoint(BaseModel):
    """Means over the step that began ``at``; None where no beat told."""

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
    """``GET /factories/{name}/history``: status changes, newest first, and the load, the further back the coarser."""

    factory_name: str
    changes: list[StatusChange]
    load: list[LoadSeries]


class Accepted(BaseModel):
    """The answer to a registration (``registered``) or a beat (``ok``)."""

    status: str
    factory_name: str
    received_at: datetime
