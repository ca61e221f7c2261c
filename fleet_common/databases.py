"""What SQLite says about a database file: sound, damaged, empty. Never loads PySyft, and changes no row.

SQLite finds damage only where it reads. ``damage`` reads the whole file, or as much as there is time for.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_STEPS = 2_000  # of SQLite's virtual machine, between two looks at the clock
_LOG_MAGIC = (0x377F0682, 0x377F0683, 0)  # 0: the disk lost power before the first block of a new log was written


def kind(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 where the error does not come from SQLite itself."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def says_damaged(error: sqlite3.Error) -> bool:
    return kind(error) in _DAMAGE


def says_disk(error: sqlite3.Error) -> bool:
    """Whether it is about the disk: full, or it cannot be read or written."""
    return kind(error) in _DISK


def opened(path: Path) -> sqlite3.Connection:
    """The existing database at ``path``, to read. A connection that could write would move the whole log into the
    database when it is closed. Raises sqlite3.Error."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60)


def log_of(path: Path) -> Path:
    """Its write-ahead log: what was written last may be there only."""
    return path.with_name(f"{path.name}-wal")


def damage(path: Path, seconds: float, *, thorough: bool = False) -> str:
    """What is wrong with the database, in SQLite's words; empty when nothing was found in that many ``seconds``.

    ``thorough`` compares each index with its table too. Raises sqlite3.Error when it cannot be read at all, for want
    of space for example.
    """
    if wrong := _damage_of_log(log_of(path)):
        return wrong
    give_up = time.monotonic() + seconds
    try:
        with closing(opened(path)) as connection:
            connection.set_progress_handler(lambda: time.monotonic() > give_up, _STEPS)
            check = "integrity_check" if thorough else "quick_check"
            (found,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if kind(error) == sqlite3.SQLITE_INTERRUPT:
            return ""
        if says_damaged(error):
            return str(error)
        raise
    return "" if found == "ok" else str(found).strip().splitlines()[-1]


def _damage_of_log(log: Path) -> str:
    """SQLite takes a log with a wrong first word for an empty one, and says nothing of what is lost."""
    try:
        with log.open("rb") as file:
            begin = file.read(4)
    except FileNotFoundError:
        return ""
    lost = len(begin) == 4 and int.from_bytes(begin) not in _LOG_MAGIC
    return f"{log.name} does not begin as a log does" if lost else ""


def is_empty(path: Path) -> bool:
    """Whether there is no table in it, as when it was cut off at its beginning. Raises sqlite3.Error."""
    if path.stat().st_size == 0 and not _holds_anything(log_of(path)):
        return True
    with closing(opened(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return bool(count == 0)


def _holds_anything(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
