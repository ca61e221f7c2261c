"""The dashboard's SQLite file: the factories, their status changes and their load.

Reads no clock and knows no HTTP. Every ``write`` is one transaction, synced to the disk before the call returns; WAL
lets readers continue meanwhile. ``mend`` checks every row that is read, so that a bad row does not affect the others.
A lock file gives the database to one process, because the current state is in its memory. Load is kept by minute for an
hour, by ten minutes for a day, and by six hours for thirty days. Status changes are kept for thirty days, and at most
``CHANGES_KEPT`` for each factory. ``tidy`` aggregates and removes what is older.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Dialect,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError
from sqlalchemy.types import UserDefinedType

from central.dashboard import mend
from central.dashboard.liveness import FactoryStatus
from central.dashboard.mend import Mended
from central.dashboard.wire import MOST_MILLISECONDS, MOST_PERCENT
from fleet_common.failures import ConfigurationFailure

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 2
BUSY_TIMEOUT = 5.0
MINUTE = 60
CHANGES_KEPT = 200
DAY = 86400
CHANGES_FOR = 30 * DAY
_LATE = 60.0
_MOST_COMPLAINTS = 1000
_AT_ONCE = 500
"""Rows that are prepared for writing at a time. All of them could take as much memory as the roster."""


class Step(NamedTuple):
    """Load in steps of ``seconds``, kept for ``kept`` seconds."""

    seconds: int
    kept: int


STEPS = (Step(MINUTE, 3600), Step(600, DAY), Step(6 * 3600, 30 * DAY))


class _Json(UserDefinedType[bytes]):
    """JSON as bytes, written as text and read unchecked, so that invalid JSON does not affect the other rows."""

    cache_ok = True

    def get_col_spec(self, **_words: Any) -> str:
        return "JSON"

    def bind_processor(self, dialect: Dialect) -> Callable[[bytes | None], str | None]:  # noqa: ARG002 - SQLAlchemy's signature
        return lambda value: None if value is None else value.decode()


_metadata = MetaData()
_factories = Table(
    "factories",
    _metadata,
    Column("name", String, primary_key=True),
    Column("hostname", String, nullable=False),
    Column("port", Integer, nullable=False),
    Column("device", String, nullable=False),
    Column("reported_status", String, nullable=False),
    Column("capabilities", _Json, nullable=False),
    Column("registered_at", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("last_heartbeat", Float),
    Column("timestamp", String),
    Column("current_load", _Json),
    Column("active_experiments", _Json),
    Column("last_training_completion", String),
    Column("region", String, nullable=False, server_default=""),
    Column("location", String, nullable=False, server_default=""),
    Column("status", String, nullable=False, server_default=FactoryStatus.RUNNING.value),
    Column("status_since", Float, nullable=False, server_default="0"),
)
_changes = Table(
    "changes",
    _metadata,
    Column("name", String, primary_key=True),
    Column("at", Float, primary_key=True),
    Column("status", String, nullable=False),
    sqlite_with_rowid=False,
)
_loads = Table(
    "loads",
    _metadata,
    Column("step", Integer, primary_key=True),
    Column("name", String, primary_key=True),
    Column("at", Integer, primary_key=True),
    Column("beats", Integer, nullable=False),
    Column("cpu", Float),
    Column("memory", Float),
    Column("disk", Float),
    Column("latency", Float),
    sqlite_with_rowid=False,
)
_BOUNDS = {"beats": mend.MOST_BEATS, "most": MOST_PERCENT, "longest": MOST_MILLISECONDS}
_SINCE_VERSION_2 = ("region", "location", "status", "status_since")


class StoreUnusable(ConfigurationFailure):
    """The database file cannot be used. The message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Factory:
    """One row. Times are POSIX seconds of the server's clock. ``timestamp`` and ``last_training_completion`` are as the
    factory sent them. Bytes are compact JSON; as objects they could take twenty times the memory. An empty hostname, a
    port of 0 and a time of 0 mean unknown.
    """

    name: str
    hostname: str
    port: int
    device: str
    reported_status: str
    capabilities: bytes
    registered_at: float
    last_seen: float
    last_heartbeat: float | None = None
    timestamp: str | None = None
    current_load: bytes | None = None
    active_experiments: bytes | None = None
    last_training_completion: str | None = None
    region: str = ""
    location: str = ""
    status: str = FactoryStatus.RUNNING.value
    status_since: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """The factory has this status from ``at`` on."""

    name: str
    at: float
    status: str


@dataclass(frozen=True, slots=True)
class MeanLoad:
    """The means of the heartbeats of one step, which began ``at``."""

    name: str
    at: int
    beats: int = 0
    cpu: float | None = None
    memory: float | None = None
    disk: float | None = None
    latency: float | None = None


@dataclass(slots=True)
class Batch:
    """The content of one transaction. ``loads`` are by minute."""

    factories: list[Factory] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    loads: list[MeanLoad] = field(default_factory=list)


class FactoryStore:
    """All methods may be called from any thread, and raise SQLAlchemyError when the file cannot be used."""

    def __init__(self, database: Path) -> None:
        """Open or create ``database`` and its folder, and lock it for this process. Raises StoreUnusable."""
        self._lock, self._engine = _open(database)
        self._tidied = 0.0
        self._complaints: set[tuple[str, str]] = set()

    def close(self) -> None:
        self._engine.dispose()
        os.close(self._lock)

    def ping(self) -> None:
        """Return if the file can be read."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM factories LIMIT 1"))

    def factories(self) -> list[Factory]:
        """All factories, sorted by name, without rows that have no valid name."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(_factories).order_by("name"))
            return [Factory(**columns) for columns in self._mended(mend.factory, (row._mapping for row in rows))]

    def minutes(self, since: float) -> Iterator[MeanLoad]:
        """The loads by minute from ``since`` on, oldest first for each factory."""
        columns = [_loads.c[one.name] for one in fields(MeanLoad)]
        wanted = select(*columns).where(_loads.c.step == MINUTE, _loads.c.at >= since).order_by("name", "at")
        with self._engine.connect() as connection:
            for columns_of_row in self._mended(mend.load, connection.execute(wanted)):
                yield MeanLoad(**columns_of_row)

    def write(self, batch: Batch) -> None:
        """Write all of ``batch``, or nothing."""
        with self._engine.begin() as connection:
            _upsert(connection, _factories, map(_columns, batch.factories))
            _upsert(connection, _changes, map(_columns, batch.changes))
            _upsert(connection, _loads, ({"step": MINUTE} | _columns(load) for load in batch.loads))

    def changes(self, name: str) -> list[Change]:
        """Newest first."""
        wanted = select(_changes).where(_changes.c.name == name).order_by(_changes.c.at.desc()).limit(CHANGES_KEPT)
        with self._engine.connect() as connection:
            return [Change(**columns) for columns in self._mended(mend.change, connection.execute(wanted))]

    def loads(self, name: str, step: Step, now: float) -> list[MeanLoad]:
        """Oldest first, as far back as this step is kept."""
        columns = [_loads.c[one.name] for one in fields(MeanLoad)]
        of_it = (_loads.c.step == step.seconds, _loads.c.name == name, _loads.c.at >= now - step.kept)
        with self._engine.connect() as connection:
            rows = connection.execute(select(*columns).where(*of_it).order_by(_loads.c.at))
            return [MeanLoad(**columns_of_row) for columns_of_row in self._mended(mend.load, rows)]

    def tidy(self, now: float) -> None:
        """Aggregate finished steps into coarser ones, and remove what is too old. May run twice."""
        with self._engine.begin() as connection:
            for fine, coarse in pairwise(STEPS):
                _sum_up(connection, fine, coarse, now, since=self._tidied)
            for step in STEPS:
                _forget_loads(connection, step, now)
            _forget_changes(connection, now)
        self._tidied = now

    def _mended(self, how: Callable[[Any], Mended], rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
        for mended in map(how, rows):
            for fault in mended.faults:
                self._complain(mended, fault)
            if mended.columns is not None:
                yield mended.columns

    def _complain(self, mended: Mended, fault: str) -> None:
        """Log once for each factory and column, so that a page that reads often does not fill the log."""
        who = f"{mended.name!r:.160}"
        if (who, fault) in self._complaints or len(self._complaints) >= _MOST_COMPLAINTS:
            return
        self._complaints.add((who, fault))
        outcome = "the row is left out" if mended.columns is None else "it is shown as unknown"
        logger.warning("factory %s: the database has an invalid %s; %s", who, fault, outcome)


def _columns(row: Factory | Change | MeanLoad) -> dict[str, Any]:
    return {one.name: getattr(row, one.name) for one in fields(row)}


def _upsert(connection: Connection, table: Table, rows: Iterable[dict[str, Any]]) -> None:
    statement = insert(table)
    keys = list(table.primary_key.columns.keys())
    renewed = {column: statement.excluded[column] for column in table.columns.keys() if column not in keys}  # noqa: SIM118 - a ColumnCollection yields columns, not keys
    left = iter(rows)
    while several := list(islice(left, _AT_ONCE)):
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=renewed), several)


def _sum_up(connection: Connection, fine: Step, coarse: Step, now: float, *, since: float) -> None:
    """Aggregate the steps of ``coarse`` that ended since the last time, or shortly before: a heartbeat may be written
    late. A figure beyond its limit is skipped, because it would distort the mean of hours."""
    end = int(now // coarse.seconds) * coarse.seconds
    begin = int((since - _LATE) // coarse.seconds) * coarse.seconds
    if begin == end:
        return
    connection.execute(
        text(
            "INSERT OR REPLACE INTO loads (step, name, at, beats, cpu, memory, disk, latency) "
            "SELECT :coarse, name, at / :coarse * :coarse AS slot, "
            "SUM(CASE WHEN beats BETWEEN 0 AND :beats THEN beats ELSE 0 END), "
            "AVG(CASE WHEN cpu BETWEEN 0 AND :most THEN cpu END), "
            "AVG(CASE WHEN memory BETWEEN 0 AND :most THEN memory END), "
            "AVG(CASE WHEN disk BETWEEN 0 AND :most THEN disk END), "
            "AVG(CASE WHEN latency BETWEEN 0 AND :longest THEN latency END) "
            "FROM loads WHERE step = :fine AND at >= :begin AND at < :end GROUP BY name, slot"
        ),
        {"coarse": coarse.seconds, "fine": fine.seconds, "begin": begin, "end": end, **_BOUNDS},
    )


def _forget_loads(connection: Connection, step: Step, now: float) -> None:
    """Remove whole coarser steps only: the rest of a step would give a wrong mean."""
    whole = max((one.seconds for one in STEPS if one.seconds <= step.kept), default=step.seconds)
    before = int((now - step.kept) // whole) * whole
    connection.execute(text("DELETE FROM loads WHERE step = :s AND at < :b"), {"s": step.seconds, "b": before})


def _forget_changes(connection: Connection, now: float) -> None:
    """The last change of a factory always stays: it shows since when the status holds."""
    connection.execute(
        text(
            "DELETE FROM changes WHERE (name, at) IN (SELECT name, at FROM (SELECT name, at, ROW_NUMBER() OVER "
            "(PARTITION BY name ORDER BY at DESC) AS place FROM changes) "
            "WHERE place > :most OR (place > 1 AND at < :before))"
        ),
        {"most": CHANGES_KEPT, "before": now - CHANGES_FOR},
    )


def _open(database: Path) -> tuple[int, Engine]:
    lock = -1
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = _take(database)
        engine = _engine(database)
        _prepare(engine, database)
    except (OSError, DatabaseError) as error:
        _let_go(lock)
        reason = getattr(error, "orig", None) or error
        raise StoreUnusable(
            f"cannot use the dashboard's database {database}: {reason}; "
            "it must be a SQLite file that this user can write, in a folder that this user can write"
        ) from error
    except StoreUnusable:
        _let_go(lock)
        raise
    return lock, engine


def _take(database: Path) -> int:
    """A lock that the kernel releases when this process ends for any reason."""
    beside = database.with_name(f"{database.name}.lock")
    lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreUnusable(
            f"another dashboard uses the database {database}; stop that dashboard, or choose another file"
        ) from error
    return lock


def _let_go(lock: int) -> None:
    if lock >= 0:
        os.close(lock)


def _engine(database: Path) -> Engine:
    url = URL.create("sqlite", database=str(database.absolute()))
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def _tune(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=FULL")
        # Text that is not UTF-8 would fail the whole query. With surrogates it fails only one check of ``mend``.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")

    return engine


def _prepare(engine: Engine, database: Path) -> None:
    """Set WAL and create the tables of this release. Writing the version each time checks that the file is writable."""
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
        found = int(connection.execute(text("PRAGMA user_version")).scalar_one())
        if found > SCHEMA_VERSION:
            raise StoreUnusable(
                f"a newer release wrote the database {database} (schema {found}, this release knows {SCHEMA_VERSION}); "
                "use that release, or choose another file"
            )
        if found == 1:
            _from_version_1(connection)
        _metadata.create_all(connection)
        connection.execute(text(f"PRAGMA user_version={SCHEMA_VERSION}"))


def _from_version_1(connection: Connection) -> None:
    for name in _SINCE_VERSION_2:
        column = _factories.c[name]
        kind = "FLOAT" if isinstance(column.type, Float) else "VARCHAR"
        default = column.server_default.arg  # type: ignore[union-attr]  # each of these columns has a default
        connection.execute(text(f"ALTER TABLE factories ADD COLUMN {name} {kind} NOT NULL DEFAULT '{default}'"))
    connection.execute(text("UPDATE factories SET status_since = last_seen"))
    logger.info("upgraded the database to schema %d", SCHEMA_VERSION)
