"""All factories in memory: their registrations, their last values, and whether they are alive.

``liveness`` decides. Reads no clock (``now`` is an argument), no database and no socket. Only the event loop's thread
may use it. It collects what must be written, for the keeper, and what must be shown, for the feed.
"""

from __future__ import annotations

import heapq
import logging
import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from central.dashboard.liveness import FactoryStatus, Now, Thresholds, judge, worsens_after
from central.dashboard.store import MINUTE, Batch, Change, Factory, MeanLoad
from central.dashboard.wire import CurrentLoad, Heartbeat, Registration, compact, experiments_kept

logger = logging.getLogger(__name__)

MOST_FACTORIES = 20_000
"""At their largest they take 520 MiB, 27 KiB each. With the values of usual datasites they take 45 MiB."""
RECENT_MINUTES = 60
_PIECE = 128 * 1024
"""Bytes of a list that are made, and kept for a reader, at a time."""
_MOST_WAITING = 50_000
"""Changes and finished minutes kept while the disk fails. The oldest beyond this are lost."""


class Full(Exception):
    """No more factories are accepted."""


class Recent:
    """CPU percent by minute for the last hour, in a few hundred bytes."""

    __slots__ = ("_values", "until")

    def __init__(self) -> None:
        self.until = 0
        self._values = array("f", [math.nan] * RECENT_MINUTES)

    def note(self, at: int, cpu: float | None) -> None:
        """Store the mean of the minute that began ``at`` (POSIX seconds). Skips a clock set back a little."""
        passed = (at - self.until) // MINUTE
        if -RECENT_MINUTES < passed < 0:
            return
        if not 0 <= passed < RECENT_MINUTES:
            self._values = array("f", [math.nan] * RECENT_MINUTES)
        elif passed:
            self._values = self._values[passed:] + array("f", [math.nan] * passed)
        self.until = at
        self._values[-1] = math.nan if cpu is None else cpu

    def document(self) -> dict[str, Any]:
        cpu = [round(value) if math.isfinite(value) else None for value in self._values]
        first = next((place for place, value in enumerate(cpu) if value is not None), len(cpu))
        return {"until": self.until, "step_s": MINUTE, "cpu": cpu[first:]}


@dataclass(slots=True)
class _Entry:
    """``heard``: the tick at which its silence began. ``queued``: its next deadline is in the queue."""

    factory: Factory
    heard: float
    queued: bool = False
    minute: MeanLoad | None = None
    recent: Recent = field(default_factory=Recent)
    shown: bytes = b""


class Roster:
    """``changed``: the factories that must be shown again, until somebody takes them."""

    def __init__(
        self, thresholds: Thresholds, now: Now, kept: Iterable[Factory] = (), minutes: Iterable[MeanLoad] = ()
    ) -> None:
        self.thresholds = thresholds
        self.changed: set[str] = set()
        self._entries: dict[str, _Entry] = {}
        self._due: list[tuple[float, str]] = []
        self._unwritten: set[str] = set()
        self._changes: deque[Change] = deque(maxlen=_MOST_WAITING)
        self._minutes: deque[MeanLoad] = deque(maxlen=_MOST_WAITING)
        for factory in kept:
            self._restore(factory, now)
        for load in minutes:
            self._restore_minute(load)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    # --- what comes in ---

    def register(self, registration: Registration, now: Now) -> None:
        """A known factory keeps its first registration time and the values of its heartbeats. Raises Full."""
        entry = self._entries.get(registration.factory_name)
        if entry is None:
            entry = self._newcomer(registration, now)
        columns = {
            "hostname": registration.factory_hostname,
            "port": registration.factory_port,
            "device": registration.device,
            "reported_status": registration.status,
            "capabilities": compact(registration.capabilities),
            "region": registration.region,
            "location": registration.location,
        }
        self._hear(entry, now, columns)

    def beat(self, beat: Heartbeat, now: Now) -> bool:
        """False if there is no such factory. A value that the heartbeat does not contain stays as it was."""
        entry = self._entries.get(beat.factory_name)
        if entry is None:
            return False
        columns = beat.model_dump(exclude={"factory_name", "current_load", "active_experiments"}, exclude_none=True)
        if "status" in columns:
            columns["reported_status"] = columns.pop("status")
        if beat.current_load is not None:
            columns["current_load"] = beat.current_load.model_dump_json().encode()
        if beat.active_experiments is not None:
            columns["active_experiments"] = experiments_kept(beat.active_experiments)
        self._hear(entry, now, {"last_heartbeat": now.wall, **columns})
        self._note_load(entry, now, beat.current_load or CurrentLoad())
        return True

    def advance(self, now: Now) -> None:
        """Update the status of factories whose silence has reached a threshold. The others cost nothing."""
        while self._due and self._due[0][0] <= now.tick:
            entry = self._entries[heapq.heappop(self._due)[1]]
            entry.queued = False
            silence = now.tick - entry.heard
            status = judge(silence, self.thresholds)
            self._become(entry, status, now.wall - self._overdue(silence, status))
            self._queue(entry)

    def next_deadline(self) -> float | None:
        """The tick at which ``advance`` has something to do; None while no status can get worse."""
        return self._due[0][0] if self._due else None

    # --- what goes out ---

    def shown(self, name: str) -> bytes:
        """The factory as JSON, without ``silence_s`` and the closing brace. Made once for each change."""
        entry = self._entries[name]
        if not entry.shown:
            entry.shown = self._rendered(entry)
        return entry.shown

    def one(self, name: str, now: Now) -> bytes:
        silence = max(0.0, now.wall - self._entries[name].factory.last_seen)
        return b'%b,"silence_s":%.3f}' % (self.shown(name), silence)

    def all(self, now: Now) -> bytes:
        """``FactoryList`` as JSON, sorted by name."""
        return b"".join(self.pieces(now))

    def pieces(self, now: Now) -> Iterator[bytes]:
        """The same in pieces, so that the caller can handle heartbeats in between."""
        self.advance(now)
        late, offline = self.thresholds.late_after, self.thresholds.offline_after
        yield f'{{"now":"{iso(now.wall)}","late_after":{late},"offline_after":{offline},"factories":['.encode()
        piece = bytearray()
        for place, name in enumerate(sorted(self._entries)):
            piece += (b"," if place else b"") + self.one(name, now)
            if len(piece) >= _PIECE:
                yield bytes(piece)
                piece.clear()
        yield bytes(piece)
        yield b"]}"

    def take_changed(self) -> list[str]:
        taken, self.changed = sorted(self.changed), set()
        return taken

    def take_unwritten(self) -> Batch:
        """Everything that is not on the disk yet. The caller puts back what it could not write."""
        names, self._unwritten = self._unwritten, set()
        entries = [self._entries[name] for name in names]
        running = [entry.minute for entry in entries if entry.minute is not None]
        batch = Batch([entry.factory for entry in entries], list(self._changes), [*self._minutes, *running])
        self._changes.clear()
        self._minutes.clear()
        return batch

    def put_back(self, batch: Batch) -> None:
        self._unwritten |= {factory.name for factory in batch.factories}
        self._changes.extendleft(reversed(batch.changes))
        self._minutes.extendleft(load for load in reversed(batch.loads) if self._is_over(load))

    # --- inside ---

    def _rendered(self, entry: _Entry) -> bytes:
        """A factory that cannot be shown in full is shown with its name and status, and does not affect the others."""
        try:
            return _encoded(entry)
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            known = entry.factory
            logger.error("factory %r: only name and status can be shown: %s", known.name, error)
            bare = Factory(known.name, "", 0, "", "", b"{}", 0.0, 0.0, status=known.status)
            return _encoded(_Entry(bare, entry.heard))

    def _is_over(self, load: MeanLoad) -> bool:
        """Whether its minute is over. The running minute is written again with its factory."""
        running = self._entries[load.name].minute
        return running is None or running.at != load.at

    def _newcomer(self, registration: Registration, now: Now) -> _Entry:
        if len(self._entries) >= MOST_FACTORIES:
            raise Full(f"this dashboard has {MOST_FACTORIES} factories, which is its limit")
        name, host, port = registration.factory_name, registration.factory_hostname, registration.factory_port
        factory = Factory(name, host, port, "", "", b"{}", now.wall, now.wall, status_since=now.wall)
        self._changes.append(Change(name, now.wall, factory.status))
        entry = self._entries[name] = _Entry(factory, now.tick)
        return entry

    def _hear(self, entry: _Entry, now: Now, columns: dict[str, Any]) -> None:
        entry.factory = replace(entry.factory, last_seen=now.wall, **columns)
        entry.heard = now.tick
        self._become(entry, FactoryStatus.RUNNING, now.wall)
        self._queue(entry)
        self._touch(entry)

    def _become(self, entry: _Entry, status: FactoryStatus, since: float) -> None:
        if entry.factory.status != status:
            entry.factory = replace(entry.factory, status=status.value, status_since=since)
            self._changes.append(Change(entry.factory.name, since, status.value))
            self._touch(entry)

    def _touch(self, entry: _Entry) -> None:
        entry.shown = b""
        self.changed.add(entry.factory.name)
        self._unwritten.add(entry.factory.name)

    def _queue(self, entry: _Entry) -> None:
        """Each factory has one place in the queue. A heartbeat does not move it; ``advance`` checks again when it is
        due."""
        after = worsens_after(FactoryStatus(entry.factory.status), self.thresholds)
        if not entry.queued and after is not None:
            heapq.heappush(self._due, (entry.heard + after, entry.factory.name))
            entry.queued = True

    def _overdue(self, silence: float, status: FactoryStatus) -> float:
        """How long ago the threshold was reached."""
        limits = {FactoryStatus.LATE: self.thresholds.late_after, FactoryStatus.OFFLINE: self.thresholds.offline_after}
        return silence - limits.get(status, silence)

    def _note_load(self, entry: _Entry, now: Now, load: CurrentLoad) -> None:
        at = int(now.wall // MINUTE) * MINUTE
        minute = entry.minute
        if minute is None or minute.at != at:
            if minute is not None:
                self._minutes.append(minute)
            minute = MeanLoad(entry.factory.name, at)
        entry.minute = _averaged(minute, load)
        entry.recent.note(at, entry.minute.cpu)

    def _restore(self, factory: Factory, now: Now) -> None:
        """A factory that ran when the dashboard stopped gets its full time again: the dashboard was not listening."""
        silent = max(0.0, now.wall - factory.last_seen)
        ran = factory.status == FactoryStatus.RUNNING
        entry = self._entries[factory.name] = _Entry(factory, now.tick if ran else now.tick - silent)
        self._become(entry, judge(now.tick - entry.heard, self.thresholds), now.wall)
        self._queue(entry)

    def _restore_minute(self, load: MeanLoad) -> None:
        if entry := self._entries.get(load.name):
            entry.minute = load
            entry.recent.note(load.at, load.cpu)


def _averaged(minute: MeanLoad, load: CurrentLoad) -> MeanLoad:
    beats = minute.beats + 1
    return MeanLoad(
        minute.name,
        minute.at,
        beats,
        _mean(minute.cpu, load.cpu_usage, beats),
        _mean(minute.memory, load.memory_usage, beats),
        _mean(minute.disk, load.disk_usage, beats),
        _mean(minute.latency, load.network_latency, beats),
    )


def _mean(before: float | None, value: float | None, count: int) -> float | None:
    if before is None or value is None:
        return before if value is None else value
    return before + (value - before) / count


def _encoded(entry: _Entry) -> bytes:
    """The factory as JSON. Parts that are stored as JSON are inserted as they are."""
    factory = entry.factory
    address = {
        "factory_name": factory.name,
        "status": factory.status,
        "status_since": iso(factory.status_since),
        "reported_status": factory.reported_status,
        "hostname": factory.hostname or None,
        "port": factory.port or None,
        "device": factory.device,
        "region": factory.region,
        "location": factory.location,
    }
    moments = {
        "registered_at": _moment(factory.registered_at),
        "last_seen": _moment(factory.last_seen),
        "last_heartbeat": _moment(factory.last_heartbeat),
        "timestamp": factory.timestamp,
    }
    return b'%b,"capabilities":%b,%b,"load":%b,"recent_load":%b,"active_experiments":%b,%b' % (
        compact(address)[:-1],
        factory.capabilities,
        compact(moments)[1:-1],
        factory.current_load or b"null",
        compact(entry.recent.document()),
        factory.active_experiments or b"null",
        compact({"last_training_completion": factory.last_training_completion})[1:-1],
    )


def _moment(posix: float | None) -> str | None:
    """0 means a time that is unknown, because the database was damaged."""
    return iso(posix) if posix else None


def iso(posix: float) -> str:
    return datetime.fromtimestamp(posix, UTC).isoformat(timespec="milliseconds")
