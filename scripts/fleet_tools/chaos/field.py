"""What a fault uses, and the record of its effects: what it hit, what it may have touched, what may be missing.

It holds no fault and draws no conclusion; ``verdict`` does that from what is written down here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fleet_tools.chaos.board import Board
from fleet_tools.chaos.clients import Clients
from fleet_tools.chaos.disk import Disk
from fleet_tools.chaos.plan import Strike
from fleet_tools.chaos.plant import Plant
from fleet_tools.chaos.verdict import Excuse, Injection
from fleet_tools.chaos.world import Broken, Nothing
from fleet_tools.processes import alive, describe
from fleet_tools.waiting import Trouble, until
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot


@dataclass
class Field:
    """``overlap``: several faults at once, so that none of them can promise anything for itself."""

    plant: Plant
    board: Board
    state_disk: Disk
    log_disk: Disk
    clients: Clients
    overlap: bool = False
    injections: list[Injection] = field(default_factory=list)
    excuses: list[Excuse] = field(default_factory=list)
    restarts: dict[str, int] = field(default_factory=dict)  # by datasite: how many restarts this strike should cause
    renewed: set[str] = field(default_factory=set)  # datasites that this strike gave a new process
    new_supervisor: bool = False

    @property
    def patience(self) -> float:
        """Seconds to wait for what should come about; among other faults it may have to wait for their end."""
        return _SOON if self.overlap else Plant.patience

    def begin(self) -> None:
        """Begin a strike: nothing is touched yet."""
        self.restarts, self.renewed, self.new_supervisor = {}, set(), False

    # --- whom it hits ---

    def victim(self, strike: Strike) -> WorkerSnapshot:
        """Raises Nothing when that datasite is not serving."""
        line = self.plant.lines[strike.line % len(self.plant.lines)]
        worker = next((one for one in self._picture().datasites if one.name == line.name), None)
        if worker is None or not worker.pid or (not worker.ready and not self.overlap):
            raise Nothing(f"{line.name} is not serving")
        return worker

    def supervisor(self) -> int:
        return self._picture().supervisor_pid

    def _picture(self) -> FleetSnapshot:
        picture = self.plant.picture()
        if picture is None:
            raise Nothing("no supervisor answers")
        return picture

    def hit(self, worker: WorkerSnapshot, number: signal.Signals, *, supervised: bool = True) -> None:
        """Signal the worker's process alone. ``supervised``: a supervisor runs that can report its end."""
        self.signal(worker.pid or 0, number)
        self.injections.append(Injection(worker.name, worker.pid or 0, number.name, time.time(), supervised))

    @staticmethod
    def signal(pid: int, number: signal.Signals) -> None:
        if pid <= 1:
            raise Nothing("there is no such process")
        try:
            os.kill(pid, number)
        except ProcessLookupError as error:
            raise Nothing(f"process {pid} has already ended") from error

    def touch(self, name: str, restarts: int = 0) -> None:
        """This strike gives ``name`` another process, counted as so many restarts."""
        self.renewed.add(name)
        self.restarts[name] = self.restarts.get(name, 0) + restarts

    @contextmanager
    def excused(self, *names: str) -> Iterator[None]:
        """Inside, these datasites may end by themselves, and their events may be lost."""
        since = time.time()
        before = {one.name: one.restarts for one in self._picture().datasites}
        try:
            yield
        finally:
            with contextlib.suppress(Trouble):
                after = {one.name: one.restarts for one in self.plant.look().datasites}
                self.excuses += [
                    Excuse(name, since, time.time(), before.get(name, 0), after.get(name, 0)) for name in names
                ]

    # --- what must hold ---

    def promise(self, kept: object, otherwise: str) -> None:
        """Raises Broken when it is not kept. Overlapping faults promise nothing."""
        if not kept and not self.overlap:
            raise Broken(otherwise)

    def back(self, before: WorkerSnapshot, *, ready: bool = True) -> WorkerSnapshot:
        """Wait until the datasite has a new process, which serves if ``ready`` is set. Raises Broken."""

        def again() -> WorkerSnapshot | None:
            picture = self.plant.picture()
            lines = [one for one in picture.datasites if one.name == before.name] if picture else []
            return next((one for one in lines if one.pid not in (None, before.pid) and (one.ready or not ready)), None)

        return until(again, self.patience, f"{before.name} back with a new process")

    def gone(self, pids: list[int], what: str) -> None:
        """Wait until none of these is left."""
        with contextlib.suppress(Trouble):
            until(lambda: not any(map(alive, pids)), 5.0, what)
        left = [describe(pid) for pid in pids if alive(pid)]
        self.promise(not left, f"{what} still runs: {', '.join(left)}")


_SOON = 5.0
