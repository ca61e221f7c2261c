"""The rival: a dashboard written the plain way. A program of its own:
``python -m fleet_tools.bench.plain_board PORT DATABASE``.

FastAPI's ordinary endpoints over SQLAlchemy sessions: each beat is a commit, each list a query. In its favour SQLite
is in WAL mode and does not sync each commit, and nothing is checked that ours checks.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import JSON, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """Of the one table."""


class Factory(Base):
    """One row."""

    __tablename__ = "factories"
    factory_name: Mapped[str] = mapped_column(primary_key=True)
    told: Mapped[dict[str, Any]] = mapped_column(JSON)
    last_heartbeat: Mapped[datetime | None]


class Told(BaseModel, extra="allow"):
    """A registration or a beat."""

    factory_name: str


class Shown(BaseModel, from_attributes=True):
    """A factory in the list."""

    factory_name: str
    told: dict[str, Any]
    last_heartbeat: datetime | None


def make_app(database: str) -> FastAPI:
    engine = create_engine(f"sqlite:///{database}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _tune(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    Base.metadata.create_all(engine)
    app = FastAPI()

    @app.post("/register_factory")
    def register_factory(told: Told) -> dict[str, str]:
        with Session(engine) as session:
            session.merge(Factory(factory_name=told.factory_name, told=told.model_dump(), last_heartbeat=None))
            session.commit()
        return {"status": "registered"}

    @app.post("/heartbeat")
    def heartbeat(told: Told) -> dict[str, str]:
        with Session(engine) as session:
            factory = session.get(Factory, told.factory_name)
            if factory is None:
                raise HTTPException(404, "not registered")
            factory.told = factory.told | told.model_dump()
            factory.last_heartbeat = datetime.now(UTC)
            session.commit()
        return {"status": "ok"}

    @app.get("/factories")
    def factories() -> list[Shown]:
        with Session(engine) as session:
            return [Shown.model_validate(one) for one in session.scalars(select(Factory))]

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
