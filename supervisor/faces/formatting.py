"""How durations, ages, sizes and foreign text are written for people. Pure; reads no clock."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from datetime import datetime

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float) -> str:
    """Two figures at most: ``0.4s``, ``12s``, ``4m 05s``, ``3h 12m``, ``5d 03h``."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600:02d}h"


def age(then: str, now: str) -> str:
    """How long before ``now`` it was ``then``, both ISO 8601; ``?`` when one is no time."""
    try:
        seconds = (datetime.fromisoformat(now) - datetime.fromisoformat(then)).total_seconds()
    except (TypeError, ValueError):
        return "?"
    return duration(seconds)


def size(count: float) -> str:
    """Bytes as people read them: ``12.3 MiB``."""
    for unit in _UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {_UNITS[-1]}"


def clean(text: str) -> str:
    """One printable line of ``text``: names and reasons come from outside, and may contain control characters."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "�" for sign in text)


def clean_log(text: str) -> str:
    """The same for several lines, tabs kept."""
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "�" for sign in text.replace("\r\n", "\n"))


def plural(count: int, noun: str) -> str:
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


def near(name: str, names: Iterable[str]) -> list[str]:
    """The names that ``name`` may have meant, best first."""
    known = {known.lower(): known for known in names}
    return [known[match] for match in difflib.get_close_matches(name.lower(), known, n=3)]
