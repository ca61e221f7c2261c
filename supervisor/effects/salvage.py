"""Copies what can be read of a damaged SQLite database into a new one, row by row. Never writes to the damaged one.

SQLite gives up a whole query at the first page that it cannot read. So a range of rows that fails is halved, until the
rows that are lost stand alone.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from fleet_common import databases

FIELDS = "fields"
"""The column of PySyft's tables that holds the object, as JSON."""
_FARTHEST = 1 << 17
"""Where the last row of a table cannot be looked up, rows are looked for up to here."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Rows by table, of tables with any."""

    rows: dict[str, int]
    broken: tuple[str, ...]
    """Tables of which something could not be read."""

    def to_text(self, target: Path) -> str:
        lost = f"; something was lost of: {', '.join(self.broken)}" if self.broken else "; nothing was lost"
        return f"{sum(self.rows.values())} objects were saved in {target}{lost}"


def tables(connection: sqlite3.Connection) -> list[str]:
    """Raises sqlite3.Error."""
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return [name for (name,) in found]


def save(damaged: Path, target: Path) -> Saved:
    """Raises sqlite3.Error when not even the list of tables can be read, and OSError."""
    with tempfile.TemporaryDirectory(dir=target.parent) as room:
        copy = Path(room) / damaged.name
        for one in (damaged, databases.log_of(damaged)):
            if one.exists():
                shutil.copyfile(one, copy.with_name(one.name))
        with closing(databases.opened(copy)) as old, closing(sqlite3.connect(target)) as new:
            target.chmod(0o600)
            return _copied(old, new)


def _copied(old: sqlite3.Connection, new: sqlite3.Connection) -> Saved:
    old.text_factory = lambda raw: raw.decode("utf-8", "replace")
    made = _schema(old)
    names = [name for kind, name, _ in made if kind == "table"]
    rows, broken = {}, []
    for sql in _of_kind(made, "table"):
        new.execute(sql)
    for name in names:
        count, whole = _copy_table(old, new, name)
        rows.update({name: count} if count else {})
        broken += [] if whole else [name]
    for sql in _of_kind(made, "index"):
        new.execute(sql)
    new.commit()
    return Saved(rows, tuple(broken))


def _schema(old: sqlite3.Connection) -> list[tuple[str, str, str]]:
    wanted = "type IN ('table', 'index') AND sql IS NOT NULL AND name NOT LIKE 'sqlite_%'"
    return old.execute(f"SELECT type, name, sql FROM sqlite_master WHERE {wanted}").fetchall()  # noqa: S608 - a constant


def _of_kind(made: list[tuple[str, str, str]], wanted: str) -> list[str]:
    return [sql for kind, _, sql in made if kind == wanted]


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, name: str) -> tuple[int, bool]:
    """How many rows were copied, and whether all could be read."""
    at = columns(old, name)
    marks = ", ".join("?" * len(at))
    count, whole = 0, True
    for row in _rows(old, name):
        if row is None or not _is_sound(row, at):
            whole = False
            continue
        new.execute(f'INSERT OR IGNORE INTO "{name}" VALUES ({marks})', row)  # noqa: S608 - a name from the schema
        count += 1
    return count, whole


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]


def _is_sound(row: tuple[object, ...], at: list[str]) -> bool:
    """Whether PySyft could read it: one object that it cannot read makes it refuse all of the table."""
    if FIELDS not in at:
        return True
    try:
        return isinstance(json.loads(str(row[at.index(FIELDS)])), dict)
    except (ValueError, RecursionError):
        return False


def _rows(old: sqlite3.Connection, name: str) -> Iterator[tuple[object, ...] | None]:
    """Every row that can be read; None for each range that cannot."""
    waiting = [(1, _last(old, name))]
    while waiting:
        first, last = waiting.pop()
        try:
            found = old.execute(f'SELECT * FROM "{name}" WHERE rowid BETWEEN ? AND ?', (first, last)).fetchall()  # noqa: S608 - as above
        except (sqlite3.Error, OverflowError):
            if first == last:
                yield None
                continue
            middle = (first + last) // 2
            waiting += [(middle + 1, last), (first, middle)]
        else:
            yield from found


def _last(old: sqlite3.Connection, name: str) -> int:
    try:
        (last,) = old.execute(f'SELECT max(rowid) FROM "{name}"').fetchone()  # noqa: S608 - as above
    except sqlite3.Error:
        return _FARTHEST
    return min(last or 1, 1 << 40)
