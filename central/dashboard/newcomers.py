"""Limits how many new factories one address may register in an hour. They may all come at once.

Pure: ``tick`` is an argument. Known factories do not count, and an address without new ones costs no memory.
"""

from __future__ import annotations

import ipaddress

NEW_PER_HOUR = 1000
"""Enough for a plant, which may register some hundred datasites at once when its dashboard changes."""
HOUR = 3600.0


class Newcomers:
    """A bucket for each address. A new factory fills it by one; it empties by ``most`` an hour."""

    def __init__(self, most: int = NEW_PER_HOUR) -> None:
        self.most = most
        self._filled: dict[str, tuple[float, float]] = {}

    def wait(self, address: str, tick: float) -> float:
        """Seconds until this address may register another factory; 0: now."""
        return max(0.0, self._level(_place(address), tick) + 1 - self.most) * HOUR / self.most

    def note(self, address: str, tick: float) -> None:
        """Count a new factory from this address."""
        place = _place(address)
        self._filled[place] = (self._level(place, tick) + 1, tick)

    def _level(self, place: str, tick: float) -> float:
        level, since = self._filled.get(place, (0.0, tick))
        return max(0.0, level - (tick - since) * self.most / HOUR)


def _place(address: str) -> str:
    """The key of an address. An IPv6 /64 network is one address here, because a single host can use all of it."""
    try:
        read = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(read, ipaddress.IPv4Address):
        return str(read)
    return str(read.ipv4_mapped or ipaddress.IPv6Network((int(read) >> 64 << 64, 64)))
