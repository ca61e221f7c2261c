"""The real fleet that is broken: its fleet.yaml, its command line, its control socket, its history.

It commands and reads; what is broken and what must hold is decided elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from chaos import world
from chaos.world import Broken
from fleet_common.layout import StateFolder
from supervisor.effects import leash
from supervisor.effects.recorder import read_lines
from supervisor.faces.client import ControlClient, ControlError
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot

PATIENCE = 240.0
"""Seconds within which everything must have come about; on an idle machine it takes one or two."""
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


class Plant:
    """Not started when made. ``state`` and ``logs`` may be disks of their own."""

    def __init__(self, folder: Path, state: Path, logs: Path, ports: list[int], board: str) -> None:
        self.folder, self.state, self.logs = folder, state, logs
        self.file = folder / "fleet.yaml"
        self.lines = [Line(f"line_{number}", port) for number, port in enumerate(ports, 1)]
        self.ports = set(ports)
        self._board = board
        self.write()

    def write(self, lines: list[Line] | None = None, **more: Any) -> None:
        """Write fleet.yaml as things stand."""
        document = {
            "version": 1,
            "name": "chaos",
            "state_dir": str(self.state),
            "log_dir": str(self.logs),
            "shutdown_grace": GRACE,
            "defaults": {"dashboard_url": self._board, "probes": PROBES, "restart": RESTART},
            "datasites": [line.document() for line in lines or self.lines],
            **more,
        }
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    # --- the command line ---

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "supervisor", "-f", str(self.file), *words]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE + 60, check=False
        )

    def must(self, *words: str, code: int = 0) -> str:
        """What the command says. Raises Broken when it ends with another code, or with a traceback."""
        done = self.run(*words)
        said = (done.stdout + done.stderr).strip()
        if done.returncode != code:
            raise Broken(f"fleet {' '.join(words)} ended with {done.returncode}, not {code}: {said[-600:]}")
        if "Traceback" in said:
            raise Broken(f"fleet {' '.join(words)} shows a traceback: {said[-600:]}")
        return said

    def up(self) -> None:
        self.must("up", "--detach", "--timeout", str(PATIENCE))

    # --- what it says of itself ---

    def picture(self) -> FleetSnapshot | None:
        """None while no supervisor answers."""
        try:
            with ControlClient(self.state) as client:
                return client.status()
        except ControlError:
            return None

    def look(self) -> FleetSnapshot:
        """Raises Broken when no supervisor answers."""
        return world.until(self.picture, 30.0, "an answer of the supervisor")

    def line(self, name: str) -> WorkerSnapshot:
        for one in self.look().datasites:
            if one.name == name:
                return one
        raise Broken(f"the supervisor does not know {name}")

    def whole(self) -> FleetSnapshot | None:
        """The picture, when every line of fleet.yaml is ready; else None."""
        picture = self.picture()
        if picture is None or {one.name for one in picture.datasites} != {line.name for line in self.lines}:
            return None
        return picture if all(one.ready and one.pid for one in picture.datasites) else None

    def wait_whole(self) -> FleetSnapshot:
        """Raises Broken with what is not ready, and why."""
        try:
            return world.until(self.whole, PATIENCE, "the fleet whole again")
        except Broken as broken:
            raise Broken(f"{broken}: {self._trouble()}") from broken

    def _trouble(self) -> str:
        picture = self.picture()
        if picture is None:
            return "no supervisor answers"
        lines = [f"{one.name} {one.state} ({one.reason})" for one in picture.datasites if not one.ready]
        return ", ".join(lines) or f"it has {', '.join(one.name for one in picture.datasites)}"

    # --- its processes ---

    def leash(self, name: str) -> Path:
        return StateFolder(self.state).worker(name).leash

    def family(self, name: str) -> list[int]:
        """Every living process of that line, the worker included."""
        return leash.bearers(self.leash(name))

    def jobs(self, name: str) -> list[int]:
        """The processes of that line's queued jobs."""
        return [pid for pid in self.family(name) if f"{name}, job " in _title(pid)]

    def zygotes(self, name: str) -> list[int]:
        """What that line's jobs are forked from."""
        return [pid for pid in self.family(name) if any(mark in _title(pid) for mark in _ZYGOTES)]

    def forkserver(self, supervisor: int) -> int | None:
        for child in _children(supervisor):
            with contextlib.suppress(psutil.Error):
                if "multiprocessing.forkserver" in " ".join(child.cmdline()):
                    return child.pid
        return None

    def inhabitants(self) -> list[int]:
        return [pid for pid in world.inhabitants([self.folder, self.state]) if pid != os.getpid()]

    # --- its history ---

    def events(self) -> list[dict[str, Any]]:
        """Oldest first, over the rotated files."""
        newest = StateFolder(self.state).history.events
        files = [newest.with_name(f"{newest.name}.{number}") for number in range(9, 0, -1)]
        return [event for path in (*files, newest) if path.exists() for event in read_lines(path)]


_ZYGOTES = ("jobs are forked from here", "datasite_worker.jobs.zygote")


def _title(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def _children(pid: int) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from psutil.Process(pid).children()
