"""What the real tests share: a fleet in a temporary folder, a datasite alone, a central that can be told to misbehave.

Nothing here is stubbed but the central; ports are free ones, and no process outlives the test that started it.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from fleet_common.layout import WorkerFolder
from fleet_tools import datasite, processes
from fleet_tools.central import StandInCentral
from fleet_tools.ports import free_ports
from fleet_tools.temporary_fleet import TemporaryFleet, brought_up

PATIENCE = float(os.environ.get("FLEET_TEST_PATIENCE", "1"))
"""How many times longer everything may take; for machines that are not quite real ones."""
CEILING = 120.0 * PATIENCE
"""Seconds; a loaded machine imports PySyft ten times slower than an idle one."""


def eventually(what: Callable[[], Any], ceiling: float = CEILING) -> Any:
    """The first true answer of ``what``; fails after ``ceiling`` seconds."""
    give_up = time.monotonic() + ceiling
    while not (answer := what()):
        assert time.monotonic() < give_up, "did not come about in time"
        select_nothing()
    return answer


def select_nothing() -> None:
    """Let the others run for a moment."""
    select.select([], [], [], 0.02)


_states: dict[int, Path] = {}
"""The state folder of the datasite that a test has given that port."""


def answers(port: int) -> dict[str, Any] | None:
    """What ``GET /factory.status`` says to who has the datasite's key; None while nobody answers."""
    return datasite.status(port, _states.get(port))


def belongs(port: int, state: Path) -> None:
    """The datasite on ``port`` keeps its state there."""
    _states[port] = state


def login(state_dir: Path, port: int) -> Any:
    """The admin's PySyft client, with the password that the datasite drew."""
    return datasite.login(port, WorkerFolder(state_dir).admin)


def living_in(folder: Path) -> list[int]:
    """Every living process that has its roots in ``folder``, but this one."""
    return processes.inhabitants([folder])


class Fleet(TemporaryFleet):
    """Lines alpha and beta, and the embedded dashboard unless ``central`` names another. ``extra`` holds keys for every
    datasite."""

    patience = 180 * PATIENCE

    def __init__(self, folder: Path, central: str = "", extra: str = "") -> None:
        super().__init__(folder, ("alpha", "beta"))
        self.central = central
        self.extra = extra
        self.alpha, self.beta = self.ports["alpha"], self.ports["beta"]
        self.dashboard = self.dashboard_port
        self.write()

    def write(self) -> None:
        head = "" if self.central else f"dashboard: {{mode: embedded, port: {self.dashboard}}}\n"
        where = f"dashboard_url: '{self.central}', " if self.central else ""
        self.file.write_text(
            f"version: 1\nname: test\n{head}defaults: {{{where}heartbeat_interval: 1{self.extra}}}\n"
            f"datasites:\n  - {{name: alpha, port: {self.alpha}}}\n  - {{name: beta, port: {self.beta}}}\n"
        )

    def up(self, *words: str) -> None:
        for name in ("alpha", "beta", "gamma"):
            if hasattr(self, name):
                belongs(getattr(self, name), self.state(name))
        super().up(*words)

    def log(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()

    def login(self, name: str, port: int = 0) -> Any:
        return login(self.state(name), port or self.ports[name])


def a_fleet(folder: Path, central: str = "", extra: str = "") -> AbstractContextManager[Fleet]:
    """A fleet that is up, and is gone afterwards."""
    return brought_up(Fleet(folder, central, extra))


class Central(StandInCentral):
    """A central that answers as it is told: ``codes`` maps a path to a status code; ``hang`` answers nothing at all.

    ``said`` keeps every body, with the path it came to.
    """

    def __init__(self) -> None:
        super().__init__(free_ports(1)[0])
        self.codes: dict[str, int] = {}
        self.hang = False
        self.said: list[tuple[str, dict[str, Any]]] = []

    def bodies(self, path: str, name: str = "alpha") -> list[dict[str, Any]]:
        return [body for asked, body in list(self.said) if asked == path and body["factory_name"] == name]

    def answer(self, path: str, body: bytes) -> tuple[int, bytes] | None:
        self.said.append((path, json.loads(body)))
        if self.hang:
            self.wait(CEILING)
            return None
        return self.codes.get(path, 200), b""


class Alone:
    """One datasite by hand: ``python -m datasite_worker`` in ``folder``."""

    def __init__(self, folder: Path, name: str = "solo") -> None:
        self.folder = folder
        self.name = name
        self.port = free_ports(1)[0]
        self.state = folder / ".fleet" / "datasites" / name
        self.process: subprocess.Popen[bytes] | None = None
        belongs(self.port, self.state)

    def start(self, *words: str, program: tuple[str, ...] = (sys.executable, "-m", "datasite_worker")) -> None:
        """Start it, and wait until it answers or has ended."""
        command = [*program, "--factory_name", self.name, "--port", str(self.port), *words]
        with (self.folder / "console").open("ab") as console:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=console, stderr=console)
        pid = self.process.pid
        eventually(lambda: self.ended() is not None or ((told := answers(self.port)) and told.get("pid") == pid))

    def ended(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def log(self) -> str:
        return (self.folder / "logs" / f"{self.name}.log").read_text()


@contextmanager
def alone(folder: Path) -> Iterator[Alone]:
    made = Alone(folder)
    try:
        yield made
    finally:
        if made.process is not None and made.ended() is None:
            made.process.kill()
            made.process.wait(15)
