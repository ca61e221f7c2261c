"""Errors of a full disk and of a damaged database, as an operator reads them: found however deep PySyft wraps them."""

from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from datasite_worker import troubles
from fleet_common import failures
from fleet_common.contract import ExitCode
from fleet_common.failures import ConfigurationFailure, KnownFailure, NoSpace

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def wrapped(error: BaseException) -> RuntimeError:
    """As PySyft and its database layer do."""
    try:
        try:
            raise error  # noqa: TRY301 - it must have been raised to be a context
        except BaseException as inner:
            raise ValueError("[SQL: PRAGMA journal_mode = WAL]") from inner
    except ValueError as outer:
        made = RuntimeError("Failed to get")
        made.__context__ = outer
        return made


def of_sqlite(code: int, words: str) -> sqlite3.Error:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Any:
    def be(free: int, size: int = 2_000_000, *, files: int = 100) -> None:
        seen = os.statvfs_result((4096, 1, size, free, free, 100, files, files, 0, 255))
        monkeypatch.setattr(os, "statvfs", lambda _: seen)

    return be


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, "quota"),
        of_sqlite(sqlite3.SQLITE_FULL, "database or disk is full"),
        of_sqlite(sqlite3.SQLITE_IOERR_SHMSIZE, "disk I/O error"),
        of_sqlite(sqlite3.SQLITE_CANTOPEN, "unable to open database file"),
    ],
)
def test_a_full_disk_is_named_by_its_folder(tmp_path: Path, room: Any, error: BaseException) -> None:
    """Whatever name SQLite has for it. It is to be tried again, which its exit code says."""
    from datasite_worker import entry

    room(0)
    with pytest.raises(NoSpace) as caught, troubles.named(tmp_path):
        raise wrapped(error)
    assert f"no space left in {tmp_path} (0 of 2 MB free)" == str(caught.value)
    assert ExitCode.NO_SPACE == entry._exit_code(caught.value)


def test_a_full_disk_refuses_a_start(tmp_path: Path, room: Any) -> None:
    """Before anything is written by half; so does one without inodes."""
    room(5_000_000, 40_000_000)
    troubles.refuse_full_disk(tmp_path)
    room(5_000_000, 40_000_000, files=0)
    with pytest.raises(NoSpace, match="5 of 40 MB free, no free inodes"):
        troubles.refuse_full_disk(tmp_path)
    room(150_000, 2_000_000)
    with pytest.raises(NoSpace, match=r"0.1 of 2 MB free|0.2 of 2 MB free"):
        troubles.refuse_full_disk(tmp_path)


def test_the_folder_of_the_file_is_named_where_the_error_knows_it(tmp_path: Path) -> None:
    """The log may lie on another disk than the state."""
    error = OSError(errno.ENOSPC, "full", str(tmp_path / "logs" / "alpha.log"))
    (tmp_path / "logs").mkdir()
    assert f"no space left in {tmp_path / 'logs'} (" in str(troubles.known_failure(error, tmp_path))


def test_damage_and_other_errors_of_sqlite_are_told_in_its_words(tmp_path: Path, room: Any) -> None:
    """Only damage is for the operator alone: no restart helps."""
    damaged = troubles.known_failure(
        wrapped(of_sqlite(sqlite3.SQLITE_CORRUPT_INDEX, "database disk image is malformed")), tmp_path
    )
    assert isinstance(damaged, ConfigurationFailure)
    assert "is damaged (database disk image is malformed); restore it from a backup" in str(damaged)
    room(30_000_000, 40_000_000)
    for error in (
        of_sqlite(sqlite3.SQLITE_READONLY, "attempt to write a readonly database"),
        of_sqlite(sqlite3.SQLITE_IOERR, "disk I/O error"),
        sqlite3.ProgrammingError("closed"),
    ):
        known = troubles.known_failure(wrapped(error), tmp_path)
        assert (KnownFailure, f"its database {tmp_path} cannot be used: {error}") == (type(known), str(known))


def test_other_errors_pass(tmp_path: Path) -> None:
    """With their traceback, which is all that is known of them; and a failure that is known already."""
    with pytest.raises(ZeroDivisionError), troubles.named(tmp_path):
        raise ZeroDivisionError
    said = failures.ConfigurationFailure("port 8080 is taken")
    with pytest.raises(ConfigurationFailure, match="port 8080 is taken"), troubles.named(tmp_path):
        raise said
    error = ValueError("round")
    error.__cause__ = ValueError("and")
    error.__cause__.__cause__ = error
    assert None is troubles.known_failure(error, tmp_path)
