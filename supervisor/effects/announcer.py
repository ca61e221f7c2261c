"""Keeps the service manager informed: ready, status, reload, watchdog. ``policy.readiness`` decides what is ready.

The engine calls it from its own wait, so that a loop that hangs feeds no watchdog.
"""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.effects.sdnotify import Notifier
from supervisor.policy.readiness import readiness
from supervisor.record import WorkerRecord


class Announcer:
    """``since``: when the start began; ``limit``: seconds after which the start is over, ready or not."""

    def __init__(self, notifier: Notifier, since: float, limit: float) -> None:
        self._notifier = notifier
        self._since = since
        self._limit = limit
        self._ready_told = not notifier.enabled
        self._stopping_told = False
        self._wake_at: float | None = None
        self._fed_at = float("-inf")

    def patience(self, timeout: float | None, now: float) -> float | None:
        """``timeout``, shortened to what the service manager expects."""
        feed = self._notifier.watchdog_interval
        wakes = [timeout] if timeout is not None else []
        wakes += [max(0.0, self._fed_at + feed - now)] if feed is not None else []
        wakes += [max(0.0, self._wake_at - now)] if self._wake_at is not None else []
        return min(wakes) if wakes else None

    def feed(self, now: float) -> None:
        """Feed the watchdog, if that is due."""
        feed = self._notifier.watchdog_interval
        if feed is not None and now >= self._fed_at + feed:
            self._notifier.watchdog()
            self._fed_at = now

    def look(self, records: Mapping[str, WorkerRecord], now: float) -> None:
        """Report what changed, if anything."""
        if not self._notifier.enabled or not records:
            return
        seen = readiness(records, self._since, now, self._limit)
        if not self._ready_told and seen.due:
            self._ready_told = self._notifier.ready(seen.text)
        else:
            self._notifier.status(seen.text)
        self._wake_at = None if self._ready_told else seen.wake_at

    def reloading(self, now: float) -> None:
        self._notifier.reloading(int(now * 1e6))

    def reloaded(self, records: Mapping[str, WorkerRecord], now: float) -> None:
        """READY ends a reload for the service manager, applied or refused; the status says which."""
        if self._ready_told and self._notifier.enabled:
            self._ready_told = False
            self._limit = 0.0
            self.look(records, now)

    def stopping(self) -> None:
        if not self._stopping_told:
            self._stopping_told = self._notifier.stopping()

    def close(self) -> None:
        self._notifier.close()
