"""Who has which GPU: looks at the cards, lets ``policy.placement`` decide, and stores the answer in the state folder.

gpus.json    the assignment by name, with its reason; the next supervisor starts from it, ``fleet gpus`` shows it
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from fleet_common import state_files
from supervisor.cards import Card
from supervisor.effects.gpus import LONG_PATIENCE, PATIENCE, Gpus, Inventory
from supervisor.policy.placement import (
    ImpossibleGpus,
    Placement,
    UnseenGpus,
    keeping,
    place,
    remembered,
    requests_of,
    sees_others,
    wants_any,
)
from supervisor.spec import FleetConfig

log = logging.getLogger("fleet")

_NOT_LOADED = "no GPU driver is loaded although this host had GPUs at its last start"
_AGAIN = 1.0
"""Seconds between looks for a driver that is not loaded yet."""


class Assigner:
    """``look`` may take seconds, and any thread may call it; everything else is quick."""

    def __init__(self, path: Path, gpus: Gpus | None = None) -> None:
        self._path = path
        self._gpus = gpus or Gpus()
        self._kept = read_placement(self._path)
        self._late = bool(self.in_use or self.waiting)  # the host had GPUs, and none was seen since this start
        self._cards: tuple[Card, ...] = ()  # as seen last
        self._trouble = ""  # why there may be more

    def start(self, config: FleetConfig, survivors: Mapping[str, tuple[str, ...] | None]) -> None:
        """Place everybody before anything starts. ``survivors``: who runs, with the GPUs of its launch.

        Survivors keep theirs if the others still get what they ask for. While the GPUs are not visible, each datasite
        keeps what it had. The driver gets more time if a datasite asks for a GPU and had none, or if an ``auto`` one
        has none and nothing runs. A driver that is not loaded counts as one that does not answer on a host that had
        GPUs at its last start. Raises ImpossibleGpus or UnseenGpus, and then changes nothing.
        """
        seen = self.look(config)
        placement = self._first(config, seen, survivors)
        waits = not survivors and (self.in_use or not seen.absent)
        if seen.trouble and (placement.problems or (placement.unseen and waits)):
            whom = ", ".join((*placement.problems, *placement.unseen))
            log.warning("%s; waiting up to %g s more for %s", seen.trouble, LONG_PATIENCE, whom)
            seen = self._awaited(config) if seen.absent else self.look(config, LONG_PATIENCE)
            placement = self._first(config, seen, survivors)
        if placement.problems:
            raise UnseenGpus(seen.trouble, placement.problems) if seen.trouble else ImpossibleGpus(placement.problems)
        if seen.trouble:
            cpu = ", ".join(placement.unseen) or "nobody"
            log.warning("%s; on the CPU until then: %s; the other datasites keep their GPUs", seen.trouble, cpu)
        self.use(placement)

    def _awaited(self, config: FleetConfig) -> Inventory:
        """A driver that is not loaded answers at once, so it is asked again and again."""
        for _ in range(round(LONG_PATIENCE / _AGAIN)):
            _pause(_AGAIN)
            if not (seen := self.look(config)).absent:
                break
        return seen

    def _first(
        self, config: FleetConfig, seen: Inventory, survivors: Mapping[str, tuple[str, ...] | None]
    ) -> Placement:
        """A survivor on the CPU stays there, unless it got a GPU since or waits for the driver."""
        requests = requests_of(config)
        launched = {name: uuids for name, uuids in survivors.items() if uuids}
        on_cpu = {name: () for name, uuids in survivors.items() if uuids == ()}
        had = on_cpu | self._kept.assignments | launched
        placement = place(requests, seen.cards, had, survivors.keys() - (set(self.waiting) - launched.keys()))
        if seen.trouble:
            kept = {} if seen.absent else remembered(self._kept, requests)  # without a driver it would use the CPU
            return keeping(placement, requests, kept | launched, seen.trouble)
        return place(requests, seen.cards, had) if placement.problems and survivors else placement

    def sees_others(self, name: str, had: tuple[str, ...] | None) -> bool:
        """Whether a survivor that was launched with ``had`` must restart."""
        return sees_others(had, self.of(name), self._cards)

    def of(self, name: str) -> tuple[str, ...]:
        """The UUIDs that this datasite sees; none: CPU."""
        return self._kept.assignments.get(name, ())

    def shown(self, name: str) -> tuple[str, ...] | None:
        """What a launch of this datasite sees. None: there is nothing to assign, and we do not restrict it (ROCm, no
        NVML)."""
        return self.of(name) if self._cards or self._trouble or self.in_use else None

    @property
    def in_use(self) -> bool:
        """Whether any datasite has a GPU."""
        return any(self._kept.assignments.values())

    @property
    def assignments(self) -> dict[str, tuple[str, ...]]:
        return dict(self._kept.assignments)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Who is on the CPU only until the GPUs are visible again."""
        return self._kept.unseen

    def look_at(self, had: Mapping[str, tuple[str, ...]]) -> Inventory:
        """The cards, if any datasite has one or waits for one."""
        return self._looked() if any(had.values()) or self.waiting else Inventory()

    def look(self, config: FleetConfig, patience: float = PATIENCE) -> Inventory:
        """The cards, if any datasite of ``config`` could want one."""
        return self._looked(patience) if wants_any(config) else Inventory()

    def _looked(self, patience: float = PATIENCE) -> Inventory:
        seen = self._gpus.look(patience)
        self._late = self._late and not seen.cards
        if seen.absent and self._late:
            seen = replace(seen, trouble=f"{_NOT_LOADED} (if it has none any more, remove {self._path})")
        self._cards, self._trouble = seen.cards or self._cards, seen.trouble
        return seen

    def placed(self, config: FleetConfig, cards: tuple[Card, ...], running: Collection[str]) -> Placement:
        """Where the datasites of ``config`` would go; changes nothing."""
        requests = requests_of(config)
        placement = place(requests, cards, self._kept.assignments, set(running) - set(self.waiting))
        return keeping(placement, requests, {}, self._trouble) if self._trouble and not cards else placement

    def use(self, placement: Placement) -> None:
        """Use this from now on, for every launch. On a full disk the fleet runs on, and only the file is missing."""
        self._kept = placement
        document = {
            name: {
                "gpus": list(uuids),
                "asked": placement.asked.get(name, ""),
                "why": placement.reasons.get(name, ""),
                "unseen": name in placement.unseen,
            }
            for name, uuids in placement.assignments.items()
        }
        try:
            state_files.succeed(self._path, {"version": 1, "lines": document})
        except OSError as error:
            log.error("cannot write the GPU assignment (%s); the next supervisor may assign other GPUs", error)


def _pause(seconds: float) -> None:
    time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Assigned:
    """One datasite's part of gpus.json. ``unseen``: it waits until the GPUs can be seen."""

    gpus: tuple[str, ...]
    asked: str = ""
    why: str = ""
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class _Document:
    lines: dict[str, Assigned]


def read_document(path: Path) -> dict[str, Assigned]:
    """What was stored, by name, for whoever only looks; empty where nothing can be read."""
    found = state_files.read(path, _Document)
    return found.lines if isinstance(found, _Document) else {}


def read_placement(path: Path) -> Placement:
    """What was stored. A file that does not fit is set aside."""
    found = state_files.taken(path, _Document, "going on with the assignment before it, or a new one")
    lines = found.lines if found else {}
    assignments = {name: one.gpus for name, one in lines.items()}
    unseen = tuple(name for name, one in lines.items() if one.unseen)
    return Placement(assignments, asked={name: one.asked for name, one in lines.items()}, unseen=unseen)
