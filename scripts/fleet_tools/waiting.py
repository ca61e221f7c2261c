"""Waiting for a condition, with a ceiling. It starts and ends nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Trouble(Exception):
    """Something that was expected or requested did not happen; the text says what."""


def until(what: Callable[[], T | None], ceiling: float, wanted: str, look: float = 0.05) -> T:
    """The first true answer of ``what``, which is called every ``look`` seconds. Raises Trouble after ``ceiling``."""
    give_up = time.monotonic() + ceiling
    while not (answer := what()):
        if time.monotonic() > give_up:
            raise Trouble(f"{wanted}: timed out after {ceiling:g} s")
        time.sleep(look)
    return answer
