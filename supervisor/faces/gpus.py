"""What ``fleet gpus`` shows: the cards of this host, who uses them and why. It needs no supervisor, and changes
nothing.

``Picture`` is pure; ``take`` reads the host and the state folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fleet_common.layout import StateFolder
from supervisor.cards import Card
from supervisor.effects.gpus import Inventory
from supervisor.faces.formatting import clean, size
from supervisor.faces.location import FleetLocation

NO_GPU = "no NVIDIA GPU on this host; every datasite computes on the CPU"


@dataclass(frozen=True, slots=True)
class Holder:
    """A datasite with its GPUs; ``pid``: of its process, None when it does not run."""

    name: str
    gpus: tuple[str, ...]
    why: str
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """``owners``: the datasite of each process that computes on a card."""

    seen: Inventory
    holders: tuple[Holder, ...] = ()
    owners: dict[int, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The stable shape of ``fleet gpus --json``."""
        return {
            "trouble": self.seen.trouble,
            "cards": [self._card(card) for card in self.seen.cards],
            "lines": [asdict(holder) | {"gpus": list(holder.gpus)} for holder in self.holders],
        }

    def _card(self, card: Card) -> dict[str, Any]:
        processes = [asdict(one) | {"line": self.owners.get(one.pid)} for one in card.processes]
        mine = {"lines": [holder.name for holder in self.of(card)], "processes": processes}
        return asdict(card) | {"notes": list(card.notes), "usable": card.usable} | mine

    def of(self, card: Card) -> list[Holder]:
        return [holder for holder in self.holders if card.uuid in holder.gpus]

    def to_text(self) -> str:
        if not self.seen.cards:
            return clean(self.seen.trouble) or NO_GPU
        blocks = [line for card in self.seen.cards for line in self._block(card)]
        return "\n".join([*blocks, *self._elsewhere()])

    def _block(self, card: Card) -> Iterator[str]:
        step = "  " if card.parent else ""
        memory = f"{size(card.free_bytes)} free of {size(card.memory_bytes)}"
        what = f"MIG of GPU {card.index}" if card.parent else f"GPU {card.index}"
        yield f"{step}{what}  {clean(card.name)}  {memory}  {clean(card.uuid)}"
        yield f"{step}  health: {_health(card)}"
        for holder in self.of(card):
            yield f"{step}  {_line(holder)}"
        for one in card.processes:
            if one.pid not in self.owners:
                memory = "" if one.memory_bytes is None else f", {size(one.memory_bytes)}"
                yield f"{step}  another process: pid {one.pid}{memory}"

    def _elsewhere(self) -> Iterator[str]:
        """Who computes on the CPU, and who still waits for a missing card."""
        here = {card.uuid for card in self.seen.cards}
        for holder in self.holders:
            if not holder.gpus:
                yield f"CPU  {_line(holder)}"
            elif gone := [uuid for uuid in holder.gpus if uuid not in here]:
                yield f"gone  {_line(holder)}; had {', '.join(map(clean, gone))}"


def _line(holder: Holder) -> str:
    state = f"pid {holder.pid}" if holder.pid is not None else "not running"
    return f"{clean(holder.name)} ({state})  {clean(holder.why)}"


def _health(card: Card) -> str:
    if card.trouble:
        return f"cannot be used: {clean(card.trouble)}"
    split = ("in MIG mode: only its instances are used",) if card.split else ()
    return clean("; ".join((*split, *card.notes))) or "good"


def take(place: FleetLocation) -> Picture:
    """The picture of now. A driver that hangs costs its time limit."""
    from supervisor.effects.assigner import read_document
    from supervisor.effects.gpus import Gpus

    seen, pids = Gpus().look(), _pids(place.state_dir)
    kept = read_document(StateFolder(place.state_dir).gpus)
    known = [name for name in kept if name in place.names or name in pids]
    holders = tuple(Holder(name, kept[name].gpus, kept[name].why, pids.get(name)) for name in known)
    computing = {process.pid for card in seen.cards for process in card.processes}
    return Picture(seen, holders, _owners(computing, {pid: name for name, pid in pids.items()}))


def _pids(state_dir: Path) -> dict[str, int]:
    folder = StateFolder(state_dir).run
    if not folder.is_dir():
        return {}
    from supervisor.effects.run_files import running

    return running(folder)


def _owners(computing: set[int], datasites: dict[int, str]) -> dict[int, str]:
    """A datasite's jobs compute in processes below its own."""
    import psutil

    owners = dict[int, str]()
    for pid in computing:
        try:
            above = [pid, *(parent.pid for parent in psutil.Process(pid).parents())] if datasites else []
        except psutil.Error:
            continue
        if found := [datasites[one] for one in above if one in datasites]:
            owners[pid] = found[0]
    return owners
