"""Writes down what happened, in its own thread, so that a slow or full disk delays no decision.

Facts that brought nothing new, nearly all in a healthy fleet, are written some dozens at a time: each by itself
would be most of what an idle supervisor does. Only a supervisor that is killed loses those of its last minute.

events.jsonl    what people and hooks are told, one JSON object a line; ``fleet events`` reads it
journal.jsonl   every fact with what ``step`` made of it, and every reload before the facts that came of it: a recorded
                history that a test can replay, with exact times, as a deadline that has just passed must have passed
                in the replay too
ledger.json     what the next supervisor has to know should this one die: what is wanted, and the counts

The first two are rotated by size. A line that a crash or a full disk has torn is skipped by every reader.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from fleet_common import folders, state_files
from fleet_common.contract import StatusDocument
from fleet_common.layout import HistoryFolder
from fleet_common.untrusted import Natural, Unfit, decoded, fitted
from supervisor.facts import Fact
from supervisor.history import Event
from supervisor.messages import DownAsked
from supervisor.policy.fleet import GpuLoss, Reload
from supervisor.policy.lifecycle import Step
from supervisor.record import ExitCause, Wanted, WorkerRecord
from supervisor.spec import Rules

log = logging.getLogger("fleet")

LEDGER_VERSION = 1
_EVENT_BYTES, _EVENT_BACKUPS = 5 * 1024 * 1024, 4
_JOURNAL_BYTES, _JOURNAL_BACKUPS = 5 * 1024 * 1024, 1
_LONGEST_LINE = 1024 * 1024
_CLOSING = 5.0
_AT_ONCE = 64


class Recorder:
    """Creates the folder if absent. Every method returns at once; ``close`` waits until all is written."""

    def __init__(self, folder: HistoryFolder) -> None:
        folders.make(folder.root)
        self._ledger = folder.ledger
        self._events = _file(folder.events, _EVENT_BYTES, _EVENT_BACKUPS)
        self._journal = _file(folder.journal, _JOURNAL_BYTES, _JOURNAL_BACKUPS)
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._kept: dict[str, Any] = {}
        self._routine: list[Callable[[], None]] = []
        self._told: Any = None
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def event(self, event: Event, at: str) -> None:
        self._put(lambda: _append(self._events, event.to_dict(at)))

    def fact(self, fact: Fact, step: Step, now: float, *, routine: bool = False) -> None:
        """``routine``: nothing that anybody has to find on the disk at once."""
        self._put(lambda: _append(self._journal, fact_line(fact, step, now)), wait=routine)

    def rules(self, rules: Mapping[str, Rules], now: float) -> None:
        """A new chapter of the journal: from here on these workers, with these rules, and nothing known of them."""
        self._put(lambda: _append(self._journal, rules_line(rules, now)))

    def message(self, message: Kept, now: float) -> None:
        """Record the message from which the next facts follow."""
        self._put(lambda: _append(self._journal, message_line(message, now)))

    def ledger(self, records: Mapping[str, WorkerRecord], *, running: bool) -> None:
        """Store what the next supervisor needs; writes only when it changed."""
        entries = (running, tuple((name, *_remembered_of(record)) for name, record in records.items()))
        if entries != self._told:
            self._told = entries
            self._put(lambda: self._keep(records, running=running))

    def restore(self) -> None:
        """Somebody has removed the folder: make it again. The next call of ``ledger`` writes it. Raises OSError."""
        folders.make(self._ledger.parent)
        self._told, self._kept = None, {}

    def _put(self, work: Callable[[], None], *, wait: bool = False) -> None:
        """In the order of the calls, which all come from one thread; with ``wait``, when there are enough of them."""
        self._routine.append(work)
        if not wait or len(self._routine) >= _AT_ONCE:
            together, self._routine = self._routine, []
            self._work.put(lambda: _each(together))

    def close(self) -> None:
        self._put(lambda: None)
        self._work.put(None)
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
        self._events.close()
        self._journal.close()

    def _keep(self, records: Mapping[str, WorkerRecord], *, running: bool) -> None:
        document = ledger_document(records, running=running)
        if document == self._kept:
            return
        state_files.succeed(self._ledger, document)
        self._kept = document


class _Lines(folders.RotatingLog):
    """Writes whole lines, and ends a torn one before the next, which would be lost with it."""

    def _open(self) -> Any:
        _end_last_line(Path(self.baseFilename))
        return super()._open()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - logging's own name and shape
        """What cannot be written is lost; nothing of it is written later."""
        self._let_go()

    def _let_go(self) -> None:
        stream, self.stream = self.stream, None  # type: ignore[assignment]  # as FileHandler.close has it
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()

    def close(self) -> None:
        self._let_go()
        super().close()


def _end_last_line(path: Path) -> None:
    with contextlib.suppress(OSError), open(folders.open_file(path, os.O_RDWR), "rb+") as file:
        # An empty file cannot be sought from its end.
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.write(b"\n")


def _each(together: list[Callable[[], None]]) -> None:
    """On a full disk, loses what cannot be written and goes on."""
    for work in together:
        with contextlib.suppress(OSError):
            work()


def _file(path: Path, size: int, backups: int) -> _Lines:
    handler = _Lines(path, size=size, backups=backups, delay=True)
    handler.setFormatter(logging.Formatter("%(message)s"))
    return handler


def _append(file: _Lines, values: Mapping[str, Any]) -> None:
    file.handle(logging.makeLogRecord({"msg": json.dumps(values, separators=(",", ":"))}))


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file of JSON lines; skips torn lines. Raises OSError when there is no such file."""
    with path.open("rb") as lines:
        for line in lines:
            values = decoded(line, dict[str, Any], _LONGEST_LINE)
            if not isinstance(values, Unfit):
                yield values


# --- the journal's lines ---


Kept = Reload | GpuLoss | DownAsked
"""The messages about the fleet that are recorded, as facts about workers follow from them."""


def rules_line(rules: Mapping[str, Rules], now: float) -> dict[str, Any]:
    return {"t": now, "rules": {name: asdict(one) for name, one in rules.items()}}


def message_line(message: Kept, now: float) -> dict[str, Any]:
    return {"t": now, "message": type(message).__name__, **asdict(message)}


def fact_line(fact: Fact, step: Step, now: float) -> dict[str, Any]:
    """``s``, ``g`` and ``o``: the state and generation after it, and the orders it brought."""
    orders = [type(order).__name__ for order in step.orders]
    return {
        "t": now,
        "fact": type(fact).__name__,
        **{field.name: _told(getattr(fact, field.name)) for field in fields(fact)},
        "s": step.record.state.value,
        "g": step.record.generation,
        **({"o": orders} if orders else {}),
    }


_OF_STATUS = ("factory_name", "generation", "pid", "phase", "failure")


def _told(value: Any) -> Any:
    """Of a status only what policy looks at: a year of probes would be mostly the rest."""
    if isinstance(value, StatusDocument):
        return {key: getattr(value, key) for key in _OF_STATUS}
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


# --- the ledger ---


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a supervisor that did not stop in order left about one worker."""

    wanted: Wanted
    reason: str = ""
    restarts: Natural = 0
    restarts_by_cause: dict[str, Natural] = field(default_factory=dict)
    last_exit: ExitCause | None = None


@dataclass(frozen=True, slots=True)
class _Ledger:
    """The file as a whole. ``workers``: each by itself is a ``Remembered``."""

    running: bool
    workers: dict[str, Any]


def _remembered_of(record: WorkerRecord) -> tuple[Any, ...]:
    """All of a record that is in the ledger."""
    return record.wanted, record.asked or record.reason, record.restarts, record.restarts_by_cause, record.last_exit


def ledger_document(records: Mapping[str, WorkerRecord], *, running: bool) -> dict[str, Any]:
    workers = {
        name: {
            "wanted": record.wanted.value,
            "reason": record.asked or record.reason,
            "restarts": record.restarts,
            "restarts_by_cause": record.restarts_by_cause,
            "last_exit": asdict(record.last_exit) if record.last_exit else None,
        }
        for name, record in records.items()
    }
    return {"version": LEDGER_VERSION, "running": running, "workers": workers}


def read_ledger(folder: HistoryFolder, names: Iterable[str]) -> dict[str, Remembered]:
    """What the last supervisor left, by name; empty when it stopped in order, or there was none.

    A worker that an operator has stopped must not start because a file was damaged. So of whom nobody knows whether he
    is wanted, that one is remembered as stopped, and why. ``names``: all who could be meant.
    """
    had_one = state_files.previous(folder.ledger).exists()  # asked first: a writer makes it after the ledger itself
    found = state_files.read(folder.ledger, _Ledger)
    if found is None and not had_one:
        return {}
    if found is None or isinstance(found, Unfit):
        return _unknown(folder, found, names)
    if not found.running:
        return {}
    return {name: _remembered(fitted(values, Remembered), folder) for name, values in found.workers.items()}


def _unknown(folder: HistoryFolder, found: Unfit | None, names: Iterable[str]) -> dict[str, Remembered]:
    """Nobody is wanted; the counts are those of the ledger before. The file stays where it is: should this supervisor
    end before it has written another, the next one must not take it for the first."""
    why = found.why if found else "it is missing"
    log.error("%s cannot be used: %s; starting only what an operator starts from now on", folder.ledger, why)
    if found:
        with contextlib.suppress(OSError):
            shutil.copyfile(folder.ledger, state_files.damaged(folder.ledger))
    older = state_files.read(state_files.previous(folder.ledger), _Ledger)
    workers = older.workers if isinstance(older, _Ledger) else {}
    entries = {name: fitted(workers.get(name), Remembered) for name in names}
    return {name: _not_wanted(past, folder) for name, past in entries.items()}


def _remembered(past: Remembered | Unfit, folder: HistoryFolder) -> Remembered:
    return _not_wanted(past, folder) if isinstance(past, Unfit) else past


def _not_wanted(past: Remembered | Unfit, folder: HistoryFolder) -> Remembered:
    known = Remembered(Wanted.DOWN) if isinstance(past, Unfit) else past
    return replace(known, wanted=Wanted.DOWN, reason=f"{folder.ledger} was lost, and with it whether this was stopped")


def forget(folder: HistoryFolder) -> None:
    """The fleet was stopped without its supervisor: the next one has nothing to restore."""
    for path in (state_files.previous(folder.ledger), folder.ledger):
        path.unlink(missing_ok=True)


def restored(record: WorkerRecord, past: Remembered) -> WorkerRecord:
    """``record`` with the earlier counts, so that a new supervisor hides no crash."""
    record = replace(record, restarts=past.restarts, restarts_by_cause=past.restarts_by_cause, last_exit=past.last_exit)
    return replace(record, asked=past.reason, reason=past.reason) if past.wanted is Wanted.DOWN else record
