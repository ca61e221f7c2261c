"""Everything that can arrive at the engine, as frozen values. They do nothing.

Facts are about one worker; the others are about a process that is not identified yet, or about the fleet.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet_common.contract import StatusDocument
from supervisor.cards import Card
from supervisor.facts import Fact
from supervisor.history import Event
from supervisor.spec import FleetConfig


@dataclass(frozen=True, slots=True)
class Exited:
    """This process has ended; its exit status is still to be collected."""

    name: str
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """The supervisor received a signal. ``name``: SIGTERM, SIGINT, SIGHUP or SIGCHLD."""

    name: str


@dataclass(frozen=True, slots=True)
class DownAsked:
    """The operator stops the whole fleet."""


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """Apply a valid fleet.yaml, on a host with these GPUs."""

    config: FleetConfig
    cards: tuple[Card, ...] = ()


@dataclass(frozen=True, slots=True)
class CardsLost:
    """``lost``: by datasite, what became of its GPUs; ``had``: what every datasite has; ``cards``: what there is now.
    ``waiting``: who is on the CPU only because they could not be seen."""

    lost: dict[str, str]
    had: dict[str, tuple[str, ...]]
    cards: tuple[Card, ...]
    waiting: tuple[str, ...] = ()


Message = Fact | StatusDocument | Exited | Signalled | DownAsked | ReloadAsked | CardsLost | Event
"""A ``StatusDocument`` is a worker's pulse; an ``Event`` is only published, as its cause was found elsewhere."""
