"""Holds the state that the engine publishes, for other threads to read. A reader may wait for the next revision."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.record import WorkerRecord
from supervisor.spec import FleetConfig


@dataclass(frozen=True, slots=True)
class Pinned:
    """One consistent state of the fleet; it never changes."""

    config: FleetConfig
    revision: int = 0
    stopping: bool = False
    records: Mapping[str, WorkerRecord] = field(default_factory=dict)


class Board:
    def __init__(self, config: FleetConfig) -> None:
        self._changed = threading.Condition()
        self._pinned = Pinned(config)
        self._closed = False

    def pin(self, config: FleetConfig, records: Mapping[str, WorkerRecord], *, stopping: bool) -> None:
        with self._changed:
            self._pinned = Pinned(config, self._pinned.revision + 1, stopping, records)
            self._changed.notify_all()

    def read(self) -> Pinned:
        with self._changed:
            return self._pinned

    def wait(self, after: int, timeout: float) -> Pinned:
        """The state once its revision is above ``after``, or after ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._pinned.revision > after, timeout)
            return self._pinned

    def close(self) -> None:
        """Release every waiting reader."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
