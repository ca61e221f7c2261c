"""What a job's process needs to know. Sent from worker to zygote as JSON; a value only."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Errand:
    """One job of one datasite. ``item`` is its id in the queue, ``title`` names what runs, for people."""

    datasite: str
    state_dir: str
    item: str = ""
    title: str = ""
    threads: int = 1
    gpu_memory_bytes: int = 0
    dev_mode: bool = False
    log: str = ""  # the datasite's; empty: none

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
