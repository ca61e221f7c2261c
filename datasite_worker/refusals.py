"""Counts failed logins and refused calls, and reports them to the log and the supervisor without flooding either.
Decides nothing, and stores no secrets: no password, and no content of a refused message.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

PERIOD = 60.0
"""Seconds. The supervisor is told at most once in each."""
MOST_LINES = 20
"""Lines of the log in one period, of each kind; then only their number."""
_LONGEST = 120


@dataclass(slots=True)
class _Kind:
    count: int = 0
    last: str = ""
    told: int = 0
    told_at: float = float("-inf")
    lines: int = 0
    lines_since: float = float("-inf")
    unwritten: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """The counts so far, and the last refusal of each kind in words."""

    failed_logins: int = 0
    last_failed_login: str = ""
    refused_calls: int = 0
    last_refused_call: str = ""


@dataclass(slots=True)
class Refusals:
    """Safe to use from any thread. ``now`` is the monotonic clock's."""

    _logins: _Kind = field(default_factory=_Kind)
    _calls: _Kind = field(default_factory=_Kind)
    _told: Told = Told()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def login(self, email: str, address: str, now: float) -> bool:
        """Somebody at ``address`` could not log in as ``email``."""
        return self._note(self._logins, "login failed", f"for {shown(email)} from {shown(address)}", now)

    def call(self, why: str, address: str, now: float) -> bool:
        """A call from ``address`` was refused."""
        return self._note(self._calls, "refused a call", f"from {shown(address)}: {shown(why)}", now)

    def _note(self, kind: _Kind, what: str, words: str, now: float) -> bool:
        """Whether it was logged. If so, the caller may log more about it."""
        with self._lock:
            kind.count += 1
            kind.last = words
            if now - kind.lines_since >= PERIOD:
                if kind.unwritten:
                    logger.warning("%d more like this, not listed one by one", kind.unwritten)
                kind.lines_since, kind.lines, kind.unwritten = now, 0, 0
            kind.lines += 1
            kind.unwritten += kind.lines > MOST_LINES
            if kind.lines <= MOST_LINES:
                logger.warning("%s %s", what, words)
            return kind.lines <= MOST_LINES

    def told(self, now: float) -> Told:
        """What the supervisor may know now. It changes at most once in each ``PERIOD``."""
        with self._lock:
            for kind in (self._logins, self._calls):
                if kind.count != kind.told and now - kind.told_at >= PERIOD:
                    kind.told, kind.told_at = kind.count, now
                    self._told = self._renewed()
            return self._told

    def _renewed(self) -> Told:
        return Told(
            self._logins.told,
            self._logins.last if self._logins.told == self._logins.count else self._told.last_failed_login,
            self._calls.told,
            self._calls.last if self._calls.told == self._calls.count else self._told.last_refused_call,
        )


def shown(text: str) -> str:
    """A text from outside, made safe for one line of a log."""
    printable = "".join(one if one.isprintable() else "?" for one in text[: _LONGEST + 1])
    return printable if len(printable) <= _LONGEST else f"{printable[:_LONGEST]}…"
