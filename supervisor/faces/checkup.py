"""``fleet check``: whether a datasite has all that it had, and saves what can be read of a damaged database.

Reads the datasite's files, whether it runs or not; PySyft is never loaded. It changes nothing of the datasite: what it
saves goes into a new file.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fleet_common import databases, folders
from fleet_common.layout import StateFolder, WorkerFolder
from supervisor.effects import salvage
from supervisor.faces.faults import Exit, Fault, unsafe
from supervisor.faces.formatting import clean

PATIENCE = 3600.0
"""Seconds for one look through a database."""
_BLOBS = "BlobStorageEntry"
_PATH = re.compile(rb"/[^\0]+/blob/[^\0/]+")
_MOST_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Checkup:
    """``problems``: in words for people; ``objects``: rows of the database; ``files``: the large ones among them, which
    lie in files of their own."""

    name: str
    database: str
    problems: tuple[str, ...] = ()
    objects: int | None = None
    files: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "problems": list(self.problems)}

    def to_text(self) -> str:
        counted = f" ({self.objects} objects, {self.files} of them in files of their own)" if self.objects else ""
        if not self.problems:
            return f"{clean(self.name)}: nothing is damaged or missing{counted}"
        shown = [f"  {clean(problem)}" for problem in self.problems[:_MOST_SHOWN]]
        more = len(self.problems) - len(shown)
        return "\n".join([f"{clean(self.name)}:", *shown, *([f"  and {more} more"] if more else [])])


def look(state_dir: Path, name: str) -> Checkup:
    """Raises Fault where the datasite never ran, or its files cannot be read by this user."""
    folder = _trusted(state_dir, name)
    uid = _uid(folder)
    known = folder.pysyft_databases()
    database = folder.pysyft_database(uid) if uid else next(iter(known), folder.pysyft)
    lost = list(_lost(folder, uid, database))
    if lost or not database.is_file():
        return Checkup(name, str(database), tuple(lost))
    return _looked_through(name, database)


def save(found: Checkup, target: Path) -> str:
    """Copy every object that can be read into a new database at ``target``; what was saved, in words. Raises Fault."""
    if target.exists():
        raise Fault(f"{target} exists already", Exit.WRONG_USE, next_step="name a new file")
    try:
        return salvage.save(Path(found.database), target.absolute()).to_text(target)
    except (OSError, sqlite3.Error) as error:
        target.unlink(missing_ok=True)
        raise Fault(f"nothing of {found.database} could be saved: {error}") from error


def _trusted(state_dir: Path, name: str) -> WorkerFolder:
    folder = StateFolder(state_dir).worker(name)
    try:
        folders.check(folder.root)
    except folders.Unsafe as error:
        raise unsafe(error) from error
    except FileNotFoundError as error:
        raise Fault(f"{clean(name)} has no folder {folder.root}", next_step="mount its disk or restore it") from error
    except OSError as error:
        raise Fault(f"{folder.root} cannot be read: {error}", next_step="run this as the fleet's user") from error
    return folder


def _uid(folder: WorkerFolder) -> str:
    """Empty where the identity cannot be read."""
    try:
        return str(json.loads(folders.read_text(folder.identity))["uid"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _lost(folder: WorkerFolder, uid: str, database: Path) -> Iterator[str]:
    if not uid:
        how = "cannot be read" if folder.identity.exists() else "is missing"
        yield f"{folder.identity} {how}; restore it from a backup"
    elif not database.exists():
        yield f"{database} is missing; mount or restore it"
    elif database.stat().st_size == 0:
        yield f"{database} is empty; restore it from a backup"


def _looked_through(name: str, database: Path) -> Checkup:
    try:
        how = databases.damage(database, PATIENCE, thorough=True)
        if how:
            return Checkup(name, str(database), (f"{database} is damaged ({how}); restore it from a backup",))
        with closing(databases.opened(database)) as connection:
            tables, blobs = salvage.tables(connection), list(_blobs(connection))
            problems = (*_unreadable(connection, tables, database), *_absent(blobs))
            return Checkup(name, str(database), problems, _count(connection, tables), len(blobs))
    except (OSError, sqlite3.Error) as error:
        return Checkup(name, str(database), (f"{database} cannot be read: {error}",))


def _count(connection: sqlite3.Connection, tables: list[str], which: str = "") -> int:
    counts = (connection.execute(f'SELECT count(*) FROM "{table}" {which}') for table in tables)  # noqa: S608 - names from the schema, and a constant
    return sum(count for cursor in counts for (count,) in cursor)


def _unreadable(connection: sqlite3.Connection, tables: list[str], database: Path) -> Iterator[str]:
    """SQLite finds no fault with a text whose letters have changed."""
    ours = [table for table in tables if salvage.FIELDS in salvage.columns(connection, table)]
    if count := _count(connection, ours, f"WHERE NOT json_valid({salvage.FIELDS})"):
        yield f"{database} holds {count} objects that cannot be read; restore it from a backup"


def _blobs(connection: sqlite3.Connection) -> Iterator[tuple[Path, int]]:
    """Each large object's file, with the size that it should have."""
    if _BLOBS not in salvage.tables(connection):
        return
    for (fields,) in connection.execute(f'SELECT fields FROM "{_BLOBS}"'):  # noqa: S608 - a constant
        if (found := _blob(fields)) is not None:
            yield found


def _blob(fields: Any) -> tuple[Path, int] | None:
    """PySyft keeps the path inside a message of its own."""
    try:
        values = json.loads(fields)
        path = _PATH.search(base64.b64decode(values["location"]))
        return (Path(path.group().decode()), int(values["file_size"])) if path else None
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
        return None


def _absent(blobs: list[tuple[Path, int]]) -> Iterator[str]:
    for path, size in blobs:
        if not path.is_file():
            yield f"{path} is missing: the data of one object; restore it from a backup"
        elif path.stat().st_size < size:
            yield f"{path} has {path.stat().st_size} of {size} bytes; restore it from a backup"
