"""``fleet check``: damage is found and named, and what can be read of a damaged database is saved."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from fleet_common import databases
from fleet_common.layout import StateFolder, WorkerFolder
from supervisor.faces import checkup
from supervisor.faces.faults import Fault

OLD = Path(__file__).parents[1] / "histories" / "state-0.1.0.tar.xz"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state folder of a fleet with the datasite alpha, whose database has all in one file."""
    with tarfile.open(OLD) as archive:
        archive.extractall(tmp_path, filter="data")
    with closing(sqlite3.connect(database(tmp_path / ".fleet"))) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return tmp_path / ".fleet"


def alpha(state: Path) -> WorkerFolder:
    return StateFolder(state).worker("alpha")


def database(state: Path) -> Path:
    (found,) = alpha(state).pysyft_databases()
    return found


def change(state: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(database(state))) as connection, connection:
        connection.execute(sql, values)


def root_page(state: Path, table: str) -> int:
    with closing(sqlite3.connect(database(state))) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    return int(page)


def scribble(path: Path, at: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * count)


def test_a_sound_datasite_is_sound(state: Path) -> None:
    """With the number of its objects; nothing of it changes."""
    before = {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    found = checkup.look(state, "alpha")
    assert ((), 34, 0) == (found.problems, found.objects, found.files)
    assert "alpha: nothing is damaged or missing (34 objects, 0 of them in files of their own)" == found.to_text()
    assert {"name", "database", "problems", "objects", "files"} == set(found.to_dict())
    assert before == {path: path.read_bytes() for path in state.rglob("*") if path.is_file()}


def test_each_thing_that_is_missing_is_named(state: Path) -> None:
    """The identity, the database, all of it."""
    path = database(state)
    os.truncate(path, 0)
    assert (f"{path} is empty; restore it from a backup",) == checkup.look(state, "alpha").problems
    path.unlink()
    assert (f"{path} is missing; mount or restore it",) == checkup.look(state, "alpha").problems
    identity = alpha(state).identity
    identity.write_text("{")
    assert (f"{identity} cannot be read; restore it from a backup",) == checkup.look(state, "alpha").problems
    identity.unlink()
    assert (f"{identity} is missing; restore it from a backup",) == checkup.look(state, "alpha").problems
    shutil.rmtree(alpha(state).root)
    with pytest.raises(Fault, match="alpha has no folder"):
        checkup.look(state, "alpha")


@pytest.mark.parametrize(("at", "count"), [(0, 4096), (4096 * 20, 4096 * 40)])
def test_damage_is_named_in_sqlites_words(state: Path, at: int, count: int) -> None:
    """Without SQL, wherever it is."""
    scribble(database(state), at, count)
    (problem,) = checkup.look(state, "alpha").problems
    assert problem.startswith(f"{database(state)} is damaged (")
    assert "restore it from a backup" in problem


def test_a_row_with_broken_letters_is_found(state: Path) -> None:
    """SQLite itself sees nothing wrong with it."""
    change(state, "UPDATE Dataset SET fields = '{\"name\": ' || fields")
    (problem,) = checkup.look(state, "alpha").problems
    assert "holds 1 objects that cannot be read" in problem


def test_a_missing_file_of_a_large_object_is_found(state: Path, tmp_path: Path) -> None:
    """Also one that is cut off."""
    import base64

    blob = tmp_path / "blob" / "a1b2"
    location = base64.b64encode(b"\0path\0" + str(blob).encode() + b"\0").decode()
    fields = json.dumps({"location": location, "file_size": 5})
    change(state, "INSERT INTO BlobStorageEntry (id, fields) VALUES ('a1', ?)", fields)
    assert (f"{blob} is missing: the data of one object; restore it from a backup",) == checkup.look(
        state, "alpha"
    ).problems
    blob.parent.mkdir()
    blob.write_bytes(b"123")
    assert (f"{blob} has 3 of 5 bytes; restore it from a backup",) == checkup.look(state, "alpha").problems
    blob.write_bytes(b"12345")
    assert ((), 1) == (checkup.look(state, "alpha").problems, checkup.look(state, "alpha").files)


def test_what_can_be_read_is_saved(state: Path, tmp_path: Path) -> None:
    """All of a sound database; of a damaged one the rest. The damaged one stays as it is."""
    sound = tmp_path / "sound.db"
    assert f"34 objects were saved in {sound}; nothing was lost" == checkup.save(checkup.look(state, "alpha"), sound)
    assert "" == databases.damage(sound, 5.0, thorough=True)
    scribble(database(state), 4096 * (root_page(state, "SyftObjectMigrationState") - 1), 4096)
    before = database(state).read_bytes()
    rest = tmp_path / "rest.db"
    told = checkup.save(checkup.look(state, "alpha"), rest)
    assert f"23 objects were saved in {rest}; something was lost of: SyftObjectMigrationState" == told
    assert "" == databases.damage(rest, 5.0, thorough=True)
    assert before == database(state).read_bytes()
    with pytest.raises(Fault, match="exists already"):
        checkup.save(checkup.look(state, "alpha"), rest)


def test_where_nothing_can_be_read_nothing_is_left(state: Path, tmp_path: Path) -> None:
    """It says so, in one sentence."""
    scribble(database(state), 0, database(state).stat().st_size)
    with pytest.raises(Fault, match=r"nothing of .* could be saved"):
        checkup.save(checkup.look(state, "alpha"), tmp_path / "rest.db")
    assert not (tmp_path / "rest.db").exists()


def test_a_log_that_is_no_log_is_damage(state: Path) -> None:
    """SQLite would take it for an empty one, and lose what was written last. One of zeros was never written."""
    log = databases.log_of(database(state))
    log.write_bytes(b"\xa5" * 4096)
    assert f"{log.name} does not begin as a log does" == databases.damage(database(state), 5.0)
    log.write_bytes(b"\0" * 4096)
    assert "" == databases.damage(database(state), 5.0)
