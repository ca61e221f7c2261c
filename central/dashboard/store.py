"""What the dashboard remembers: one row per factory in a SQLite file. Reads no clock and knows no HTTP.

Every write is one statement, found by the primary key and committed before the call returns. WAL with
``synchronous=NORMAL`` keeps every commit through a killed process; a power cut may cost the last seconds, which
the next beats bring back. Within the process writers take turns on a lock (SQLite lets one write at a time, and
its own waiting is a poll); another process writing the same file is waited for up to ``BUSY_TIMEOUT`` seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    create_engine,
    event,
    select,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError

from datasite_worker.process import ConfigurationFailure

SCHEMA_VERSION = 1
BUSY_TIMEOUT = 5.0

_metadata = MetaData()
_factories = Table(
    "factories",
    _metadata,
    Column("name", String, primary_key=True),
    Column("hostname", String, nullable=False),
    Column("port", Integer, nullable=False),
    Column("device", String, nullable=False),
    Column("reported_status", String, nullable=False),
    Column("capabilities", JSON, nullable=False),
    Column("registered_at", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    Column("last_heartbeat", Float),
    Column("timestamp", String),
    Column("current_load", JSON(none_as_null=True)),
    Column("active_experiments", JSON(none_as_null=True)),
    Column("last_training_completion", String),
)


class StoreUnusable(ConfigurationFailure):
    """The database file cannot be used as it is; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Factory:
    """One row. Times are POSIX seconds of the server's clock; ``timestamp`` and
    ``last_training_completion`` are the factory's own words."""

    name: str
    hostname: str
    port: int
    device: str
    reported_status: str
    capabilities: dict[str, Any]
    registered_at: float
    last_seen: float
    last_heartbeat: float | None = None
    timestamp: str | None = None
    current_load: dict[str, float | None] | None = None
    active_experiments: int | list[str] | None = None
    last_training_completion: str | None = None


class FactoryStore:
    """All methods may be called from any thread, and raise SQLAlchemyError when the file fails them."""

    def __init__(self, database: Path) -> None:
        """Open or create ``database`` and its folder. Raises StoreUnusable."""
        self._writing = threading.Lock()
        self._engine = _open(database)

    def close(self) -> None:
        self._engine.dispose()

    def ping(self) -> None:
        """Return if the file can be read."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM factories LIMIT 1"))

    def register(self, factory: Factory) -> None:
        """Insert the factory or renew it; a known one keeps ``registered_at`` and what its beats told."""
        told = ("hostname", "port", "device", "reported_status", "capabilities", "last_seen")
        row = {column: getattr(factory, column) for column in ("name", "registered_at", *told)}
        statement = insert(_factories).values(row)
        renewed = {column: statement.excluded[column] for column in told}
        with self._writing, self._engine.begin() as connection:
            connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=renewed))

    def beat(self, name: str, at: float, told: Mapping[str, Any]) -> bool:
        """Note a beat received ``at`` that tells these columns. False: no such factory."""
        statement = update(_factories).where(_factories.c.name == name)
        with self._writing, self._engine.begin() as connection:
            return connection.execute(statement.values(last_seen=at, last_heartbeat=at, **told)).rowcount == 1

    def get(self, name: str) -> Factory | None:
        with self._engine.connect() as connection:
            row = connection.execute(select(_factories).where(_factories.c.name == name)).one_or_none()
        return _factory(row) if row else None

    def all(self) -> list[Factory]:
        """Every factory, by name."""
        with self._engine.connect() as connection:
            return [_factory(row) for row in connection.execute(select(_factories).order_by(_factories.c.name))]


def _factory(row: Row[Any]) -> Factory:
    return Factory(**row._mapping)


def _open(database: Path) -> Engine:
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        engine = _engine(database)
        _prepare(engine, database)
    except (OSError, DatabaseError) as error:
        reason = getattr(error, "orig", None) or error
        raise StoreUnusable(
            f"the dashboard's database {database} cannot be used: {reason}; "
            "expected a SQLite file that this user may write, in a folder that this user may write"
        ) from error
    return engine


def _engine(database: Path) -> Engine:
    url = URL.create("sqlite", database=str(database.absolute()))
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT})

    @event.listens_for(engine, "connect")
    def _tune(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous=NORMAL")

    return engine


def _prepare(engine: Engine, database: Path) -> None:
    """WAL, and tables of this release. Writing the version each time shows at once that the file can be written."""
    with engine.begin() as connection:
        connection.execute(text("PRAGMA journal_mode=WAL"))
        found = int(connection.execute(text("PRAGMA user_version")).scalar_one())
        if found > SCHEMA_VERSION:
            raise StoreUnusable(f"{database} was written by a newer release (schema {found}, known {SCHEMA_VERSION})")
        _metadata.create_all(connection)
        connection.execute(text(f"PRAGMA user_version={SCHEMA_VERSION}"))
