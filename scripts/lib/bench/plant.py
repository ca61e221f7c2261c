"""The two things that benches measure: a fleet under ``fleet up``, and the plain way.

The plain way is what a plant would write without fleet: one spawned process per line that calls
``sy.orchestra.launch``, and a parent that starts a line again as soon as it ends (``plain.py``).
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import world
from bench.world import Unmeasured
from fleet_common.contract import PROBE_HEADER, STATUS_PATH
from fleet_common.layout import WorkerFolder
from supervisor.faces.client import ControlClient
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot

METADATA = "/api/v2/metadata"
"""PySyft's own route that answers without a login."""
_FIRST_START = 600.0


class Fleet:
    """``lines`` datasites and the embedded dashboard, all ready. ``defaults``: keys for all of them."""

    def __init__(self, folder: Path, lines: int, defaults: str = "") -> None:
        self.folder = folder
        *ports, self.board_port = world.free_ports(lines + 1)
        self.ports = {f"line_{number:02}": port for number, port in enumerate(ports, 1)}
        self.file = folder / "fleet.yaml"
        self.file.write_text(self._yaml(defaults))

    def _yaml(self, shared: str) -> str:
        lines = "\n".join(f"  - {{name: {name}, port: {port}}}" for name, port in self.ports.items())
        defaults = f"defaults: {{{shared}}}\n" if shared else ""
        board = f"dashboard: {{mode: embedded, port: {self.board_port}}}"
        return f"version: 1\nname: bench\n{board}\n{defaults}datasites:\n{lines}\n"

    def command(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).parent / "fleet"), "-f", str(self.file), *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return world.run(self.command(*words), self.folder, _FIRST_START)

    def up(self) -> None:
        done = self.run("up", "--detach")
        if done.returncode:
            raise Unmeasured(f"fleet up ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")

    def client(self) -> ControlClient:
        return ControlClient(self.folder / ".fleet")

    def picture(self) -> FleetSnapshot:
        with self.client() as client:
            return client.status()

    def line(self, name: str) -> WorkerSnapshot:
        return next(line for line in self.picture().datasites if line.name == name)

    def all_ready(self) -> bool:
        return all(line.ready for line in self.picture().datasites)

    def state(self, name: str) -> Path:
        return self.folder / ".fleet" / "datasites" / name

    def pids(self) -> dict[str, int]:
        return {line.name: line.pid or 0 for line in self.picture().datasites}

    def close(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("down")


@contextmanager
def fleet(folder: Path, lines: int, defaults: str = "") -> Iterator[Fleet]:
    """A fleet that is up; afterwards down. Raises Unmeasured."""
    made = Fleet(folder, lines, defaults)
    try:
        made.up()
        yield made
    finally:
        made.close()


def status_pid(state: Path, port: int) -> int | None:
    """The pid that ``/factory.status`` tells who has the key in the state folder; None while nothing answers."""
    with contextlib.suppress(OSError):
        body = world.get(port, STATUS_PATH, headers={PROBE_HEADER: WorkerFolder(state).probe_key.read_text()})
        return int(json.loads(body)["pid"]) if body else None
    return None


class Plain:
    """The plain way with ``lines`` datasites, all answering."""

    def __init__(self, folder: Path, lines: int) -> None:
        self._folder = folder
        self.ports = world.free_ports(lines)
        program = Path(__file__).with_name("plain.py")
        with (folder / "plain.out").open("wb") as output:
            self.parent = subprocess.Popen(
                [sys.executable, str(program), str(folder), *map(str, self.ports)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self) -> None:
        """Until every line answers."""
        world.until(lambda: all(self.answers(port) for port in self.ports), _FIRST_START, "the plain way")

    @staticmethod
    def answers(port: int) -> bool:
        return world.get(port, METADATA) is not None

    def server(self, port: int) -> int:
        """The pid of what serves, which is not the process that launched it."""
        return world.until(lambda: world.listener(self.parent.pid, port), 10.0, f"a listener on port {port}")

    def close(self) -> None:
        """The parent first, so that nothing is started again; then what it launched, which survives its launcher."""
        self.parent.kill()
        self.parent.wait(10)
        world.end_all(self._folder)


@contextmanager
def plain(folder: Path, lines: int) -> Iterator[Plain]:
    """The plain way, up; afterwards ended. Raises Unmeasured."""
    made = Plain(folder, lines)
    try:
        made.wait()
        yield made
    finally:
        made.close()
