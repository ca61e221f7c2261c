"""Compares two reports about the same GPUs, and says which GPUs the check's datasites ask for. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from supervisor.cards import Card

MIB = 1024**2
GIB = 1024**3
SMI_FIELDS = "index,uuid,name,memory.total"
_CLAIM = 2 * GIB
_SMI_SLACK = 2  # MiB that two ways of rounding may differ
_LEAST_OF_TORCH = 0.85
"""torch counts what a program may have, NVML what is built in: the driver keeps some for itself."""


# --- what there is ---


@dataclass(frozen=True, slots=True)
class SmiGpu:
    """A row of ``nvidia-smi --query-gpu``."""

    index: int
    uuid: str
    name: str
    memory_mib: int


def of_smi(text: str) -> list[SmiGpu]:
    """Raises ValueError for any other text."""
    rows = [[cell.strip() for cell in row] for row in csv.reader(io.StringIO(text)) if row]
    return [SmiGpu(int(index), uuid, name, int(memory)) for index, uuid, name, memory in rows]


def instances_of_smi(text: str) -> set[str]:
    """The MIG instances that ``nvidia-smi -L`` lists."""
    return set(re.findall(r"UUID: (MIG-[^\s)]+)", text))


def against_smi(cards: Iterable[Card], reported: Sequence[SmiGpu]) -> list[str]:
    """Where NVML, as fleet reads it, and nvidia-smi differ."""
    ours = {card.uuid: card for card in cards if not card.parent}
    theirs = {gpu.uuid: gpu for gpu in reported}
    faults = [f"only nvidia-smi lists {uuid}" for uuid in theirs.keys() - ours.keys()]
    faults += [f"nvidia-smi does not list {uuid}" for uuid in ours.keys() - theirs.keys()]
    return faults + [fault for uuid in ours.keys() & theirs.keys() for fault in _unlike(ours[uuid], theirs[uuid])]


def _unlike(card: Card, gpu: SmiGpu) -> Iterable[str]:
    pairs = {"index": (card.index, gpu.index), "name": (card.name, gpu.name)}
    yield from (
        f"{card.uuid}: {what} {ours}, nvidia-smi says {its}" for what, (ours, its) in pairs.items() if ours != its
    )
    if abs(card.memory_bytes // MIB - gpu.memory_mib) > _SMI_SLACK:
        yield f"{card.uuid}: {card.memory_bytes // MIB} MiB, nvidia-smi says {gpu.memory_mib} MiB"


def against_torch(card: Card, seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """What torch saw where CUDA_VISIBLE_DEVICES was that GPU's UUID: it, and nothing else."""
    if len(seen) != 1:
        return [f"{card.label}: torch sees {len(seen)} GPUs instead of only this one"]
    (device,) = seen
    faults = [] if _is_uuid(device, card) else [f"{card.label}: torch reports the UUID {device['uuid']}"]
    share = device["memory"] / max(1, card.memory_bytes)
    if not _LEAST_OF_TORCH <= share <= 1.01:
        faults.append(f"{card.label}: torch reports {device['memory'] // MIB} MiB, NVML {card.memory_bytes // MIB} MiB")
    return faults


def _is_uuid(device: Mapping[str, Any], card: Card) -> bool:
    """torch leaves the prefix away; of an instance it may tell the UUID of its GPU."""
    answer = str(device["uuid"]).lower()
    return any(uuid.lower().endswith(answer) for uuid in (card.uuid, card.parent) if uuid)


def against_order(cards: Iterable[Card], seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether CUDA, which saw all there is in PCI order, counts as NVML does."""
    whole = [card for card in cards if not card.parent]
    if any(card.split or card.trouble for card in whole):
        return []  # CUDA leaves these out
    ours = [card.uuid.lower().removeprefix("gpu-") for card in whole]
    theirs = [str(device["uuid"]).lower() for device in seen]
    return [] if ours == theirs else [f"in PCI order torch lists {', '.join(theirs)}; NVML lists {', '.join(ours)}"]


# --- what is asked for ---


@dataclass(frozen=True, slots=True)
class Wish:
    """``asked``: the value of ``gpu:``; ``claim``: the bytes of memory in it."""

    asked: str
    claim: int


def wishes(cards: Sequence[Card]) -> dict[str, Wish]:
    """For the two datasites: a claim of memory each, and a GPU each where there are two. One of them takes a MIG
    instance where there is one."""
    usable = [card for card in cards if card.usable]
    claim = min(_CLAIM, min(card.memory_bytes for card in usable) // 4)
    parts = [card.uuid for card in usable if card.parent]
    what = f"memory: {claim}, exclusive: {'true' if len(usable) > 1 else 'false'}"
    which = f"devices: [{parts[0]}], " if parts else ""
    return {"alpha": Wish(f"{{{which}{what}}}", claim), "beta": Wish(f"{{{what}}}", claim)}


def too_many(cards: Sequence[Card]) -> int:
    """The number of datasites that is one too many for a GPU each on this host."""
    return sum(card.usable for card in cards) + 1


# --- what was trained ---


def farthest(one: Sequence[float], other: Sequence[float]) -> float:
    """The greatest difference between two lists of parameters, by the size of the greatest parameter; of lists that
    are not alike it is infinite."""
    if len(one) != len(other) or not one:
        return float("inf")
    largest = max(map(abs, other)) or 1.0
    return max(abs(ours - theirs) for ours, theirs in zip(one, other, strict=True)) / largest
