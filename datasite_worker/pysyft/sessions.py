"""Remembers which caller has proved to own a key, because PySyft's client asks what it may call without signing.

The client keeps cookies, so a login sets one. A signed call is proof too. Keeps nothing on disk: a cookie outlives the
datasite, as it is made from the datasite's own key. Opens no socket, and decides nothing about roles.
"""

from __future__ import annotations

import hashlib
import hmac
import threading
from collections import OrderedDict

COOKIE = "fleet_session"
LIFETIME = 30 * 86400
"""Seconds that a cookie proves its key. A client that runs for longer signs calls all the time."""
_MOST = 10_000
"""Keys and addresses that are remembered; the oldest are forgotten."""


class Sessions:
    """``secret`` is the datasite's own, known to nobody else. Times are POSIX seconds."""

    def __init__(self, secret: bytes) -> None:
        self._secret = hashlib.blake2b(secret, person=b"fleet session").digest()
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def cookie(self, key: str, now: float) -> str:
        """What a login with ``key`` (hexadecimal) leaves with its client."""
        until = int(now) + LIFETIME
        return f"{until}.{self._seal(key, until)}"

    def saw(self, key: str, address: str) -> None:
        """A call that ``key`` signed came from ``address``."""
        with self._lock:
            self._seen[key, address] = None
            self._seen.move_to_end((key, address))
            while len(self._seen) > _MOST:
                self._seen.popitem(last=False)

    def is_proven(self, key: str, address: str, cookie: str, now: float) -> bool:
        """Whether the caller at ``address`` with that ``cookie`` has proved to own ``key``."""
        return (key, address) in self._seen or self._fits(key, cookie, now)

    def _fits(self, key: str, cookie: str, now: float) -> bool:
        until, _, seal = cookie.partition(".")
        if not until.isascii() or not until.isdigit() or len(until) > len(str(LIFETIME)) + 5:
            return False
        return now < int(until) and hmac.compare_digest(seal.encode(), self._seal(key, int(until)).encode())

    def _seal(self, key: str, until: int) -> str:
        return hmac.new(self._secret, f"{key} {until}".encode(), hashlib.sha256).hexdigest()
