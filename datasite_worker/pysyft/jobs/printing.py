"""What a job prints: kept in two files as it comes, and from there in PySyft's log of the job, twice a second at most.

PySyft reads, extends and writes the whole log of a job at each ``print``. A file takes a line in microseconds, also
from a child that the job forked, and it outlives a job that is killed: the datasite then stores what the file holds.
Only the log of one job is written; it neither reads nor changes anything else of that job.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syft.service.job.job_stash import Job
from syft.service.response import SyftSuccess
from syft.store.document_store_errors import NotFoundException

logger = logging.getLogger(__name__)

PERIOD = 0.5
"""Seconds between two looks at the files."""
SHARE = 10
"""A log that takes a second to store is stored every ten: a long log must not take the job's processor."""
MOST_BYTES = 128 * 1024**2
"""Limit for what one job prints: PySyft stores a log as one value, and a runaway loop would fill the disk."""
_CUT = b"\nThe log ends here: it has reached %d MiB.\n" % (MOST_BYTES // 1024**2)
_FOLDER = "job_logs"


@dataclass(frozen=True, slots=True)
class Pages:
    """The files of one job. Each line opens its file by name: a job may close descriptors that it did not open."""

    out: Path
    err: Path

    @classmethod
    def of(cls, server: Any, job_id: Any) -> Pages:
        folder = server.get_temp_dir(_FOLDER)
        return cls(folder / f"{job_id}.out", folder / f"{job_id}.err")

    def open(self) -> None:
        """Make them. Only then is anything added: what a child prints after the end of its job makes no new log."""
        for path in (self.out, self.err):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))

    @property
    def kept(self) -> bool:
        return self.out.exists()

    def add(self, out: str, err: str) -> None:
        _append(self.out, out)
        _append(self.err, err)

    def sizes(self) -> tuple[int, int]:
        return self.out.stat().st_size, self.err.stat().st_size

    def read(self) -> tuple[str, str]:
        return _text(self.out), _text(self.err)

    def remove(self) -> None:
        for path in (self.err, self.out):  # the one that tells of both goes last
            path.unlink(missing_ok=True)


def _append(path: Path, text: str) -> None:
    if not text:
        return
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC), "ab", buffering=0) as file:
        room = MOST_BYTES - os.fstat(file.fileno()).st_size
        raw = text.encode(errors="replace")
        if room > 0:
            file.write(raw if len(raw) <= room else raw[:room] + _CUT)


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")  # the last line may be cut off in a character


class Writer:
    """Stores what ``job`` has printed so far while it runs. A fork waits until nothing is being stored: its child would
    be born with the database's locks held."""

    def __init__(self, server: Any, job: Job) -> None:
        self._server = server
        self._log_id = job.log_id
        self._pages = Pages.of(server, job.id)
        self._stored = (0, 0)
        self._storing = threading.Lock()
        self._over = threading.Event()
        self._failed = False
        self._as_pysyft = server.services.log.append

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Take each ``print`` from now on. Afterwards everything is stored."""
        self._pages.open()
        self._server.services.log.append = self.append
        os.register_at_fork(
            before=self._storing.acquire, after_in_parent=self._storing.release, after_in_child=self._storing.release
        )
        threading.Thread(target=self._keep_storing, name="prints", daemon=True).start()
        try:
            yield
        finally:
            self._over.set()
            self._finish()

    def append(self, context: Any, uid: Any, new_str: str = "", new_err: str = "") -> Any:
        """In place of PySyft's ``log.append``. A full disk loses lines, and ends no training."""
        if uid != self._log_id:
            return self._as_pysyft(context=context, uid=uid, new_str=new_str, new_err=new_err)
        try:
            self._pages.add(new_str, new_err)
        except OSError as error:
            self._say_once("lines that the job prints are lost: %s", error.strerror)
        return SyftSuccess(message="Log Append successful!")

    def _keep_storing(self) -> None:
        pause = PERIOD
        while not self._over.wait(pause):
            began = time.monotonic()
            try:
                self.store()
            except Exception as error:  # noqa: BLE001 - a database that is locked, for example: it is tried again
                self._say_once("what the job prints cannot be stored now (%s); trying again", type(error).__name__)
            pause = max(PERIOD, SHARE * (time.monotonic() - began))

    def store(self) -> None:
        """Store what has been printed, if there is more than last time."""
        with self._storing:
            sizes = self._pages.sizes()
            if sizes != self._stored:
                _store(self._server, self._log_id, self._pages)
                self._stored = sizes

    def _finish(self) -> None:
        """What cannot be stored is left to the datasite, which stores it when the job has ended."""
        try:
            self.store()
            self._pages.remove()
        except Exception:
            logger.warning("the end of what the job printed cannot be stored yet", exc_info=True)

    def _say_once(self, words: str, *more: object) -> None:
        if not self._failed:
            logger.warning(words, *more)
        self._failed = True


def collect(server: Any, job: Job) -> None:
    """Store what a job printed before it died. It raises nothing: a job's end must not depend on its prints."""
    pages = Pages.of(server, job.id)
    if not pages.kept:
        return
    try:
        if pages.sizes() != (0, 0):
            _store(server, job.log_id, pages)
        pages.remove()
    except Exception:
        logger.warning("what job %s printed cannot be stored; it is kept in %s", job.id, pages.out, exc_info=True)


def discard(server: Any, job_id: Any) -> None:
    """Of a job that was deleted."""
    with contextlib.suppress(OSError):
        Pages.of(server, job_id).remove()


def _store(server: Any, log_id: Any, pages: Pages) -> None:
    stash = server.services.log.stash
    try:
        log = stash.get_by_uid(server.verify_key, log_id).unwrap()
    except NotFoundException:  # deleted
        return
    log.stdout, log.stderr = pages.read()
    stash.update(server.verify_key, log).unwrap()
