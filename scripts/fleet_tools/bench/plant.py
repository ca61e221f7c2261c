"""The two things that benches measure: a fleet under ``fleet up``, and the plain way.

The plain way is what a plant would write without fleet: one spawned process per datasite that calls
``sy.orchestra.launch``, and a parent that restarts it as soon as it ends (``plain.py``).
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fleet_tools import datasite, processes
from fleet_tools.bench import world
from fleet_tools.ports import free_ports
from fleet_tools.temporary_fleet import TemporaryFleet
from fleet_tools.waiting import until

_FIRST_START = 600.0


class Fleet(TemporaryFleet):
    """``lines`` datasites and the embedded dashboard. ``defaults``: keys of fleet.yaml for all of them."""

    title = "bench"
    patience = _FIRST_START

    def __init__(self, folder: Path, lines: int, defaults: Mapping[str, Any]) -> None:
        super().__init__(folder, [f"line_{number:02}" for number in range(1, lines + 1)])
        self.defaults = defaults
        self.write()

    def command(self, *words: str) -> list[str]:
        """As an operator types it."""
        return [str(Path(sys.executable).parent / "fleet"), "-f", str(self.file), *words]

    def all_ready(self) -> bool:
        return self.whole() is not None


@contextmanager
def fleet(folder: Path, lines: int, defaults: Mapping[str, Any] | None = None) -> Iterator[Fleet]:
    """A fleet that is up; afterwards down. Raises Trouble."""
    with closing(Fleet(folder, lines, defaults or {})) as made:
        made.up()
        yield made


class Plain:
    """The plain way with ``lines`` datasites, all answering."""

    def __init__(self, folder: Path, lines: int) -> None:
        self._folder = folder
        self.ports = free_ports(lines)
        program = "fleet_tools.bench.plain"
        with (folder / "plain.out").open("wb") as output:
            self.parent = subprocess.Popen(
                [sys.executable, "-P", "-m", program, str(folder), *map(str, self.ports)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until every datasite answers."""
        until(lambda: all(self.answers(port) for port in self.ports), _FIRST_START, "the plain way")

    @staticmethod
    def answers(port: int) -> bool:
        return datasite.get(port, datasite.METADATA) is not None

    def server(self, port: int) -> int:
        """The pid of what serves, which is not the process that launched it."""
        return until(lambda: world.listener(self.parent.pid, port), 10.0, f"a listener on port {port}")

    def close(self) -> None:
        """The parent first, so that nothing is started again; then what it launched, which survives its launcher."""
        self.parent.kill()
        self.parent.wait(10)
        processes.end_all(self._folder)


@contextmanager
def plain(folder: Path, lines: int) -> Iterator[Plain]:
    """The plain way, up; afterwards ended. Raises Trouble."""
    made = Plain(folder, lines)
    try:
        made.wait()
        yield made
    finally:
        made.close()
