"""A datasite that lost its identity or its database is refused; a new one, and one of an earlier release, is not."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from datasite_worker import kept
from datasite_worker.credentials import identity
from fleet_common.databases import log_of
from fleet_common.failures import ConfigurationFailure
from fleet_common.layout import StateFolder, WorkerFolder

OLD = Path(__file__).parents[1] / "histories" / "state-0.1.0.tar.xz"
UID = "cb86e7fa7a384a7caebe7773498f8769"


@pytest.fixture
def folder(tmp_path: Path) -> WorkerFolder:
    """A datasite's, as an earlier release left it: without a marker."""
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    return StateFolder(tmp_path / ".fleet").worker("alpha")


def look(folder: WorkerFolder, *, existed: bool = False) -> str:
    """What is wrong; empty when the datasite may start."""
    try:
        kept.check(folder, existed=existed)
        kept.check_database(folder, identity(folder.root).uid, existed=existed)
    except ConfigurationFailure as failure:
        return str(failure)
    return ""


def test_a_folder_of_an_earlier_release_opens_and_gets_a_marker(folder: WorkerFolder) -> None:
    """The marker stays as it is from then on."""
    assert "" == look(folder, existed=True)
    kept.mark(folder, UID)
    marker = folder.marker.read_bytes()
    assert UID == json.loads(marker)["uid"]
    kept.mark(folder, UID)
    assert marker == folder.marker.read_bytes()
    assert "" == look(folder)


def test_a_new_datasite_may_start_also_after_an_interrupted_start(tmp_path: Path) -> None:
    """With nothing, and with an identity that has no database yet; not if it is known to have existed."""
    folder = WorkerFolder(tmp_path / "alpha")
    assert f"its state in {folder.root} is missing or empty" in look(folder, existed=True)
    assert "" == look(folder)
    assert folder.identity.exists()
    assert "" == look(folder)
    assert "_json.db is missing" in look(folder, existed=True)


@pytest.mark.parametrize("marked", [False, True])
def test_what_is_missing_is_named_with_the_ways_out(folder: WorkerFolder, marked: bool) -> None:
    """Whatever is left of the rest."""
    if marked:
        kept.mark(folder, UID)
    database = folder.pysyft_database(UID)
    whole = folder.identity.read_bytes()
    folder.identity.unlink()
    told = look(folder)
    assert f"its {folder.identity} is missing, and this datasite has existed before" in told
    assert all(way in told for way in ("mount the disk", "restore it from a backup", "reset: true"))
    assert not folder.identity.exists()
    folder.identity.write_bytes(whole)
    log_of(database).unlink()
    os.truncate(database, 0)
    assert f"its database {database} is empty" in look(folder)
    database.unlink()
    assert f"its database {database} is missing" in look(folder)
    shutil.rmtree(folder.pysyft)
    assert f"its database {database} is missing" in look(folder)


def test_a_database_whose_identity_is_another_is_refused(folder: WorkerFolder) -> None:
    """By the marker, and where there is none by the database that belongs to nobody."""
    kept.mark(folder, UID)
    folder.identity.unlink()
    folder.admin.unlink()
    shutil.move(folder.marker, folder.root / "aside")
    other = identity(folder.root).uid
    assert f"its database {folder.pysyft_database(other)} is missing" in look(folder)
    shutil.move(folder.root / "aside", folder.marker)
    assert f"{folder.identity} is the identity of another datasite" in look(folder)


def test_a_marker_that_cannot_be_read_refuses_nobody(folder: WorkerFolder) -> None:
    """It says at least that a datasite has been here."""
    folder.marker.write_text("{")
    assert "" == look(folder)
    folder.admin.unlink()
    folder.identity.unlink()
    shutil.rmtree(folder.pysyft)
    assert "is missing" in look(folder)


def _whole(path: Path) -> None:
    path.write_bytes(os.urandom(path.stat().st_size))


def _half(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 40_000)


def _cut_off(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [_whole, _half, _cut_off])
def test_a_damaged_database_is_named_without_sql(folder: WorkerFolder, damage: Callable[[Path], None]) -> None:
    """With what SQLite says, and the ways out."""
    database = folder.pysyft_database(UID)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    damage(database)
    told = look(folder)
    assert told.startswith(f"its database {database} is damaged (")
    assert "restore it from a backup" in told
    assert "PRAGMA" not in told
