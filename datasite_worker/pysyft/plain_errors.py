"""Keeps SQL and its parameters out of errors of the database: they end in logs, reasons and answers. The parameters
may be private data, and what SQLite said gets lost between them.
"""

from __future__ import annotations

from sqlalchemy.exc import StatementError


def install() -> None:
    """From now on, in all of this process, an error of the database has SQLite's own words as its text."""
    StatementError.__str__ = _words  # type: ignore[method-assign, assignment]  # it is called on this class only


def _words(error: StatementError) -> str:
    return str(error.orig or error.args[0])
