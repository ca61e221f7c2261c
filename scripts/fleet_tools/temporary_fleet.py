"""``TemporaryFleet``: a real fleet in a folder of its own, on free ports, for as long as a run or a test takes.

It writes fleet.yaml, gives commands as an operator does, and reads the fleet's status. It checks no promise
of the fleet: its users do. Every failure is a ``Trouble`` whose text says what the fleet answered.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fleet_common.layout import StateFolder
from fleet_tools import datasite, processes
from fleet_tools.keeper import kept
from fleet_tools.ports import free_ports
from fleet_tools.waiting import Trouble, until
from supervisor.effects import leash
from supervisor.faces.client import ControlClient, ControlError
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot

_NOT_RUNNING = 3
_ENDING = 30.0
_SLACK = 60.0


class TemporaryFleet:
    """Datasites with these ``names``, and the embedded dashboard. Making it starts nothing; ``write`` writes
    fleet.yaml. ``keys``: further keys of fleet.yaml for each datasite, by name."""

    title = "temporary"
    patience = 240.0
    """Seconds within which every datasite is ready; on an idle machine it takes a few."""
    through: tuple[str, ...] = ()
    """The command that runs ``fleet``'s own."""

    def __init__(self, folder: Path, names: Iterable[str], *, state: Path | None = None) -> None:
        self.folder = folder
        self.file = folder / "fleet.yaml"
        self.state_folder = StateFolder(state or folder / ".fleet")
        names = list(names)
        self.dashboard_port, *ports = free_ports(len(names) + 1)
        self.ports = dict(zip(names, ports, strict=True))
        self.defaults: Mapping[str, Any] = {}
        self.keys: Mapping[str, Mapping[str, Any]] = {}

    # --- fleet.yaml ---

    def document(self) -> dict[str, Any]:
        """What fleet.yaml says."""
        return {
            "version": 1,
            "name": self.title,
            "dashboard": {"mode": "embedded", "port": self.dashboard_port},
            "defaults": dict(self.defaults),
            "datasites": [{"name": name, "port": port, **self.keys.get(name, {})} for name, port in self.ports.items()],
        }

    def write(self) -> None:
        """Write fleet.yaml as things stand."""
        self.file.write_text(yaml.safe_dump(self.document(), sort_keys=False))

    # --- commands ---

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``fleet`` with these words, whatever it answers."""
        command = [*self.through, sys.executable, "-P", "-m", "supervisor", "-f", str(self.file), *words]
        return processes.run(command, self.folder, self.patience + _SLACK)

    def must(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """What ``fleet`` says. Raises Trouble when it ends with another code, or shows a traceback."""
        done = self.run(*words)
        output = (done.stdout + done.stderr).strip()
        if done.returncode not in codes:
            raise Trouble(f"fleet {' '.join(words)} ended with exit code {done.returncode}: {output[-600:]}")
        if "Traceback" in output:
            raise Trouble(f"fleet {' '.join(words)} shows a traceback: {output[-600:]}")
        return output

    def up(self, *words: str) -> None:
        """Returns when every datasite is ready. Raises Trouble."""
        self.must("up", "--detach", "--timeout", f"{self.patience:g}", *words)

    def down(self) -> None:
        """Returns when no process of the fleet is left. Raises Trouble."""
        self.must("down", codes=(0, _NOT_RUNNING))
        with contextlib.suppress(Trouble):
            until(lambda: not self.left(), _ENDING, "the end of every process")
        if left := self.left():
            raise Trouble(f"left after fleet down: {', '.join(map(processes.describe, left))}")

    def close(self) -> None:
        """``fleet down``, whatever it answers. The owner of the folder checks what is left."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.run("down")

    def end(self) -> None:
        """End the fleet in any case, by SIGKILL if necessary."""
        with contextlib.suppress(Exception):
            self.run("down", "--timeout", f"{_ENDING:g}")
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # --- what it says of itself ---

    def status(self) -> dict[str, Any]:
        """What ``fleet status --json`` prints. Raises Trouble.

        A supervisor that answers is asked itself: a command costs 0.3 s of a core, and callers ask again and again."""
        picture = self.picture()
        return self.answer("status") if picture is None else picture.to_dict()

    def answer(self, command: str) -> dict[str, Any]:
        """What ``fleet COMMAND --json`` prints. Raises Trouble."""
        done = self.run(command, "--json")
        try:
            return dict(json.loads(done.stdout))
        except ValueError as error:
            output = (done.stdout + done.stderr).strip()
            raise Trouble(f"fleet {command} --json answered: {output[-300:]}") from error

    def line(self, name: str) -> dict[str, Any]:
        """One datasite, as in ``status``."""
        found: dict[str, Any] = next(one for one in self.status()["datasites"] if one["name"] == name)
        return found

    def client(self) -> ControlClient:
        return ControlClient(self.state_folder.root)

    def picture(self) -> FleetSnapshot | None:
        """From the control socket; None while no supervisor answers."""
        try:
            with self.client() as client:
                return client.status()
        except ControlError:
            return None

    def look(self) -> FleetSnapshot:
        """From the control socket. Raises Trouble when no supervisor answers."""
        return until(self.picture, _ENDING, "an answer of the supervisor")

    def worker(self, name: str) -> WorkerSnapshot:
        """One datasite, from the control socket. Raises Trouble."""
        for one in self.look().datasites:
            if one.name == name:
                return one
        raise Trouble(f"the supervisor does not know {name}")

    def pids(self) -> dict[str, int]:
        """By datasite; 0 where it has no process."""
        return {one.name: one.pid or 0 for one in self.look().datasites}

    def whole(self) -> FleetSnapshot | None:
        """The snapshot, when every datasite of fleet.yaml is ready; else None."""
        picture = self.picture()
        if picture is None or {one.name for one in picture.datasites} != set(self.ports):
            return None
        return picture if all(one.ready and one.pid for one in picture.datasites) else None

    def wait_whole(self, ceiling: float | None = None) -> FleetSnapshot:
        """Raises Trouble with what is not ready, and why."""
        try:
            return until(self.whole, ceiling or self.patience, "every datasite ready")
        except Trouble as trouble:
            raise Trouble(f"{trouble}: {self._not_ready()}") from trouble

    def _not_ready(self) -> str:
        picture = self.picture()
        if picture is None:
            return "no supervisor answers"
        lines = [f"{one.name} {one.state} ({one.reason})" for one in picture.datasites if not one.ready]
        return ", ".join(lines) or f"it has only {', '.join(one.name for one in picture.datasites)}"

    # --- its datasites ---

    def state(self, name: str) -> Path:
        """The datasite's folder."""
        return self.state_folder.worker(name).root

    def answering_pid(self, name: str) -> int | None:
        """The process that serves; None while none does."""
        answer = datasite.status(self.ports[name], self.state(name))
        return int(answer["pid"]) if answer and "pid" in answer else None

    def login(self, name: str) -> Any:
        """PySyft's client of the datasite's owner."""
        return datasite.login(self.ports[name], self.state_folder.worker(name).admin)

    # --- its processes ---

    def family(self, name: str) -> list[int]:
        """Every living process of that datasite, the worker included."""
        return leash.bearers(self.state_folder.worker(name).leash)

    def inhabitants(self) -> list[int]:
        """The living processes that work in the fleet's folders."""
        return processes.inhabitants([self.folder, self.state_folder.root])

    def left(self) -> list[int]:
        """Every living process of the fleet, by its folders and by its datasites' leashes."""
        names = [path.name for path in self.state_folder.datasites.glob("*")]
        return sorted({*self.inhabitants(), *(pid for name in names for pid in self.family(name))})


AnyFleet = TypeVar("AnyFleet", bound=TemporaryFleet)


@contextmanager
def brought_up(fleet: AnyFleet) -> Iterator[AnyFleet]:
    """Bring that fleet up, and take it down afterwards, whatever ends this process. Raises Trouble."""
    with kept(fleet.folder):
        try:
            fleet.up()
            yield fleet
        finally:
            fleet.down()
