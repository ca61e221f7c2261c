"""Turns the errors of a full disk and of a damaged database into failures that an operator understands.

PySyft's database layer wraps SQLite's errors into long texts with SQL. What SQLite itself said is looked up inside.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_common import databases, failures
from fleet_common.disks import Space
from fleet_common.failures import ConfigurationFailure, KnownFailure
from fleet_common.layout import WorkerFolder

_DEEPEST = 32


@contextmanager
def named(folder: Path) -> Iterator[None]:
    """Raises KnownFailure for an error that is about the database or the disk of ``folder``; others pass."""
    try:
        yield
    except KnownFailure:
        raise
    except Exception as error:
        if (known := known_failure(error, folder)) is not None:
            raise known from error
        raise


def refuse_full_disk(folder: Path) -> None:
    """Raises NoSpace. A datasite that comes up on a full disk would refuse each write, or come up by half."""
    if Space.of(folder).is_low:
        raise failures.no_space(folder)


def known_failure(error: BaseException, folder: Path) -> KnownFailure | None:
    """``error`` as a failure of the database or the disk of ``folder``; None if it is something else."""
    for one in _within(error):
        if failures.says_full(one):
            return failures.no_space(_folder_of(one, folder))
        if isinstance(one, sqlite3.Error):
            return _of_database(one, folder)
    return None


def _within(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it came of."""
    at: BaseException | None = error
    for _ in range(_DEEPEST):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__


def _folder_of(error: BaseException, folder: Path) -> Path:
    """The folder of the file that could not be written; the log may be on another disk."""
    named = getattr(error, "filename", None)
    return parent if isinstance(named, str) and (parent := Path(named).parent).is_dir() else folder


def _of_database(error: sqlite3.Error, folder: Path) -> KnownFailure:
    path = next(iter(WorkerFolder(folder).pysyft_databases()), folder)
    if databases.says_damaged(error):
        return damaged(path, str(error))
    full = databases.kind(error) == sqlite3.SQLITE_FULL
    if full or (databases.says_disk(error) and Space.of(folder).is_low):
        return failures.no_space(folder)
    return KnownFailure(f"its database {path} cannot be used: {error}")


def damaged(path: Path, how: str) -> ConfigurationFailure:
    return ConfigurationFailure(
        f"its database {path} is damaged ({how}); restore it from a backup (fleet check shows what is lost and can "
        "save what is readable), or use reset: true (loses all data)"
    )
