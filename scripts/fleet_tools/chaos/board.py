"""A central dashboard that answers as it is told: well, slowly, with garbage, or not at all. It keeps nothing."""

from __future__ import annotations

from enum import StrEnum

from fleet_tools.central import StandInCentral

_SLOW = 30.0
_GARBAGE = (
    (200, b"\x00\xff<html>{{{"),
    (500, b"Traceback (most recent call last):"),
    (302, b""),
    (200, b"[" * 100_000),
)


class Mood(StrEnum):
    WELL = "well"
    SLOW = "slow"
    GARBAGE = "garbage"
    DOWN = "down"


class Board(StandInCentral):
    """Open from the start on a port of its own; ``become`` changes how it answers from then on."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.mood = Mood.DOWN
        self.requests = 0
        self.become(Mood.WELL)

    def become(self, mood: Mood) -> None:
        if mood is Mood.DOWN:
            self.close()
        elif not self.is_open:
            self.open()
        if mood is not Mood.SLOW:
            self.release()
        self.mood = mood

    def answer(self, path: str, body: bytes) -> tuple[int, bytes]:  # noqa: ARG002 - the same for everything
        self.requests += 1
        if self.mood is Mood.SLOW:
            self.wait(_SLOW)
        return (200, b"{}") if self.mood is not Mood.GARBAGE else _GARBAGE[self.requests % len(_GARBAGE)]
