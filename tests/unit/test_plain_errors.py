"""Errors of PySyft's database show what SQLite said, and neither SQL nor its parameters."""

from __future__ import annotations

import traceback

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError, StatementError

from datasite_worker.pysyft import plain_errors

PRIVATE = "what nobody may read"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StatementError, "__str__", StatementError.__str__)  # put back afterwards
    plain_errors.install()


@pytest.mark.usefixtures("installed")
def test_an_error_has_the_databases_own_words() -> None:
    """As a text and in a traceback."""
    with sa.create_engine("sqlite://").connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(sa.text("SELECT :private FROM missing"), {"private": PRIVATE})
    assert "no such table: missing" == str(caught.value)
    assert PRIVATE not in "".join(traceback.format_exception(caught.value))
    assert "no such table: nothing" == str(StatementError("no such table: nothing", "SELECT 1", {}, None))
