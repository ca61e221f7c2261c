"""The real world behind ``engine.Effects``: every outside thing wired to the engine, none of them deciding."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from supervisor.effects import clock
from supervisor.effects.board import Board, Pinned
from supervisor.effects.control import ControlServer
from supervisor.effects.gauges import Gauges
from supervisor.effects.inbox import Exited, Inbox
from supervisor.effects.launcher import Launcher
from supervisor.effects.prober import Prober
from supervisor.effects.processes import is_same, reap_strays, signal_group, sweep_group
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.effects.service import ServiceThread
from supervisor.facts import ProcessAdopted, ProcessStarted
from supervisor.orders import Probe
from supervisor.policy.launching import control_socket, fingerprint, launch_order, pulse_socket
from supervisor.record import ExitCause, WorkerRecord
from supervisor.snapshot import FleetSnapshot, SupervisorFacts, take
from supervisor.spec import FleetConfig, WorkerSpec


class Machine:
    """Made in the main thread of the supervisor, which must have the state folder's lock."""

    def __init__(self, config: FleetConfig, run_files: RunFiles, version: str) -> None:
        self._config = config
        self._run_files = run_files
        self._version = version
        self._started_at = clock.monotonic()
        self._watched: set[int] = set()
        self._gauges = Gauges()
        self._board = Board()
        self._inbox = Inbox(pulse_socket(config))
        self._inbox.catch(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        self._service = ServiceThread()
        self._prober = Prober(self._service, self._inbox.post)
        self._launcher = Launcher(self._inbox.post)
        self._control = ControlServer(self._board, self.picture, self._inbox.post)
        self._control.open(control_socket(config), self._service)

    def close(self) -> None:
        self._board.close()
        self._control.close()
        self._service.close()
        self._launcher.close()
        self._inbox.close()

    # --- what the engine asks ---

    def now(self) -> float:
        return clock.monotonic()

    def wait(self, timeout: float | None) -> list[Any]:
        messages = self._inbox.wait(timeout)
        if any(getattr(message, "number", None) == signal.SIGCHLD for message in messages):
            reap_strays(self._watched | self._launcher.helpers())
        return messages

    def launch(self, spec: WorkerSpec, generation: int) -> None:
        self._launcher.launch(self._order(spec, generation))

    def terminate(self, pid: int) -> None:
        signal_group(pid, signal.SIGTERM)

    def kill(self, pid: int) -> None:
        signal_group(pid, signal.SIGKILL)

    def probe(self, order: Probe, spec: WorkerSpec) -> None:
        self._prober.probe(order, spec)

    def watch(self, started: ProcessStarted | ProcessAdopted) -> bool:
        """Watch the process from now on; False when it is gone already."""
        try:
            pidfd = os.pidfd_open(started.pid)
        except ProcessLookupError:
            return False
        if not is_same(started.pid, started.created):
            os.close(pidfd)
            return False
        self._watched.add(started.pid)
        self._inbox.watch(started.name, started.generation, started.pid, pidfd)
        spec = self._config.worker(started.name)
        print_of = fingerprint(self._order(spec, started.generation))
        run = RunFile(started.name, started.generation, started.pid, started.created, boot_id(), print_of)
        self._run_files.write(run)
        return True

    def collect(self, exited: Exited) -> ExitCause:
        """The cause of an end; and what the dead left in its process group goes too."""
        self._watched.discard(exited.pid)
        sweep_group(exited.pid)
        self._run_files.remove(exited.name)
        return self._launcher.exit_cause(exited.pid)

    def pin(self, records: Mapping[str, WorkerRecord], *, stopping: bool) -> None:
        self._board.pin(records, stopping=stopping)

    # --- what others ask ---

    def picture(self, pinned: Pinned) -> FleetSnapshot:
        now = clock.monotonic()
        pids = {name: record.pid for name, record in pinned.records.items() if record.pid is not None}
        about = SupervisorFacts(os.getpid(), self._version, self._started_at, pinned.stopping, pinned.revision)
        return take(self._config, pinned.records, self._gauges.read(pids, now), about, now, clock.wall())

    def _order(self, spec: WorkerSpec, generation: int) -> Any:
        return launch_order(self._config, spec, generation, len(os.sched_getaffinity(0)))
