"""Everything that can arrive at the engine, as frozen values. Nothing here acts, decides or waits.

Facts speak of one worker; the others speak of a process that is not yet understood, or of the fleet as a whole.
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
    """The kernel says that this process is gone; its status has still to be collected."""

    name: str
    generation: int
    pid: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """The supervisor received a signal. ``name``: SIGTERM, SIGINT, SIGHUP or SIGCHLD."""

    name: str


@dataclass(frozen=True, slots=True)
class DownAsked:
    """The operator wants the whole fleet down."""


@dataclass(frozen=True, slots=True)
class ReloadAsked:
    """A valid fleet.yaml is to be taken up, on a host with these GPUs."""

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
"""A ``StatusDocument`` is a worker's pulse; an ``Event`` only has to be told, as its cause was found elsewhere."""
