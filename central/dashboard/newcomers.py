"""How many new factories one address may bring: so many within an hour, however many come at once.

A pure account: ``tick`` is an argument. Factories that are known already do not count, and whoever brought none costs
no memory.
"""

from __future__ import annotations

import ipaddress

NEW_PER_HOUR = 1000
"""A plant registers some hundred datasites from one address, at once after a change of the central."""
HOUR = 3600.0


class Newcomers:
    """A bucket for each address: a newcomer fills it by one, and it empties by ``most`` an hour."""

    def __init__(self, most: int = NEW_PER_HOUR) -> None:
        self.most = most
        self._filled: dict[str, tuple[float, float]] = {}

    def wait(self, address: str, tick: float) -> float:
        """Seconds until this address may bring another one; 0: now."""
        return max(0.0, self._level(_place(address), tick) + 1 - self.most) * HOUR / self.most

    def note(self, address: str, tick: float) -> None:
        """It has brought one."""
        place = _place(address)
        self._filled[place] = (self._level(place, tick) + 1, tick)

    def _level(self, place: str, tick: float) -> float:
        level, since = self._filled.get(place, (0.0, tick))
        return max(0.0, level - (tick - since) * self.most / HOUR)


def _place(address: str) -> str:
    """One network of IPv6 counts as one address: a single host has 2**64 of them."""
    try:
        read = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(read, ipaddress.IPv4Address):
        return str(read)
    return str(read.ipv4_mapped or ipaddress.IPv6Network((int(read) >> 64 << 64, 64)))
