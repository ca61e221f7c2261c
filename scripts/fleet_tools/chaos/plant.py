"""The fleet that is broken: what its fleet.yaml says just now, its command line, its processes, its history.

It gives commands and reads; other modules decide what to break and what must hold.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from fleet_tools.temporary_fleet import TemporaryFleet
from supervisor.effects.recorder import read_lines

PROBES = {
    "startup": {"period": "500ms", "timeout": "3s", "failure_threshold": 240},
    "readiness": {"period": "1s", "timeout": "2s", "failure_threshold": 2},
    "liveness": {"period": "1s", "timeout": "2s", "failure_threshold": 5},
}
"""Short, so that a stopped process is found in about ten seconds."""
RESTART = {"backoff": "200ms", "backoff_max": "2s", "max_crashes": 1000, "stable_after": "3s", "quarantine_retry": "5s"}
"""A bombardment is no crash loop; what is quarantined for another reason is tried again soon."""
GRACE = 10


@dataclass
class Line:
    """One datasite, as fleet.yaml has it. ``environment`` restarts it when changed, ``heartbeat`` does not."""

    name: str
    port: int
    heartbeat: str = "1s"
    environment: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        keys: dict[str, Any] = {"name": self.name, "port": self.port, "heartbeat_interval": self.heartbeat}
        return {**keys, "environment": self.environment} if self.environment else keys


class Plant(TemporaryFleet):
    """Not started when made. ``state`` and ``logs`` may be disks of their own; ``board`` is the dashboard's URL."""

    title = "chaos"

    def __init__(self, folder: Path, state: Path, logs: Path, lines: int, board: str) -> None:
        super().__init__(folder, [f"line_{number}" for number in range(1, lines + 1)], state=state)
        self.logs = logs
        self._board = board
        self.used: set[int] = set()
        """Every port that a datasite ever had."""
        self.become([Line(name, port) for name, port in self.ports.items()])

    def become(self, lines: Sequence[Line]) -> None:
        """Write a fleet.yaml with these datasites."""
        self.lines = list(lines)
        self.ports = {line.name: line.port for line in lines}
        self.used |= set(self.ports.values())
        self.write()

    def document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "name": self.title,
            "state_dir": str(self.state_folder.root),
            "log_dir": str(self.logs),
            "shutdown_grace": GRACE,
            "defaults": {"dashboard_url": self._board, "probes": PROBES, "restart": RESTART},
            "datasites": [line.document() for line in self.lines],
        }

    def write_other(self, lines: Sequence[Line], log_dir: Path) -> None:
        """Write a fleet.yaml that is not this fleet's."""
        other = {"log_dir": str(log_dir), "datasites": [line.document() for line in lines]}
        self.file.write_text(yaml.safe_dump(self.document() | other, sort_keys=False))

    # --- its processes ---

    def jobs(self, name: str) -> list[int]:
        """The processes of that datasite's queued jobs."""
        return [pid for pid in self.family(name) if f"{name}, job " in _title(pid)]

    def zygotes(self, name: str) -> list[int]:
        """That datasite's zygotes."""
        return [pid for pid in self.family(name) if any(mark in _title(pid) for mark in _ZYGOTES)]

    def forkserver(self, supervisor: int) -> int | None:
        for child in _children(supervisor):
            with contextlib.suppress(psutil.Error):
                if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                    return child.pid
        return None

    # --- its history ---

    def events(self) -> list[dict[str, Any]]:
        """Oldest first, over the rotated files."""
        newest = self.state_folder.history.events
        files = [newest.with_name(f"{newest.name}.{number}") for number in range(9, 0, -1)]
        return [event for path in (*files, newest) if path.exists() for event in read_lines(path)]


_ZYGOTES = ("jobs are forked from here", "datasite_worker.pysyft.jobs.zygote_main")


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def _children(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from psutil.Process(pid).children()
