"""A host's GPUs, as frozen values. ``effects.gpus`` looks at them, ``policy.placement`` decides about them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Process:
    """A process with memory on a GPU; ``memory_bytes`` None: the driver does not tell."""

    pid: int
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, or one MIG instance of it. ``index`` counts in PCI order; an instance has that of its GPU.

    ``parent``: of an instance, its GPU's UUID. ``split``: a GPU in MIG mode, of which only instances can be used.
    ``trouble``: why nothing can be placed there. ``notes``: what is not well and does not prevent it.
    """

    uuid: str
    index: int
    name: str
    memory_bytes: int
    free_bytes: int = 0
    bus: str = ""
    parent: str = ""
    split: bool = False
    trouble: str = ""
    notes: tuple[str, ...] = ()
    processes: tuple[Process, ...] = ()

    @property
    def usable(self) -> bool:
        return not (self.split or self.trouble)

    @property
    def label(self) -> str:
        return f"MIG instance {self.uuid}" if self.parent else f"GPU {self.index}"
