"""Starts worker processes, in its own thread, from multiprocessing's forkserver with PySyft and torch preloaded.

The first launch waits seconds for the forkserver to import PySyft, and a stopped forkserver would block every launch
for ever; so the engine never launches itself. It posts an order here, and a fact comes back.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Callable
from multiprocessing import forkserver, process, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from central.dashboard import entry as dashboard_entry
from datasite_worker import entry as datasite_entry
from fleet_common import failures, folders, signals
from fleet_common.contract import DashboardOrder, LaunchOrder
from fleet_common.signals import start_ticks
from supervisor.effects.processes import cause_of_code, reap
from supervisor.facts import Fact, LaunchFailed, ProcessStarted
from supervisor.policy.launching import AnyLaunchOrder
from supervisor.record import ExitCause

PRELOAD = ["datasite_worker.preload", "central.dashboard.preload"]
_LONGEST_ADDRESS = 107
_STATUS_WAIT = 0.5
"""Seconds to wait for the forkserver to tell an exit status: it does so at once, or never."""


def _why(error: Exception) -> str:
    """An error of the connection says nothing: its other end has ended."""
    if isinstance(error, ConnectionError | EOFError):
        return f"the forkserver ended while it loaded PySyft ({type(error).__name__}){failures.memory_limit()}"
    return failures.in_words(error)


class Launcher:
    """``launch`` only queues; ``tell`` receives ``ProcessStarted`` or ``LaunchFailed`` from the launcher's thread.
    ``folder``: for the sockets of the forkserver."""

    def __init__(self, tell: Callable[[Fact], None], folder: Path) -> None:
        _use(folder)
        self._tell = tell
        self._orders: queue.SimpleQueue[AnyLaunchOrder | Callable[[], object] | None] = queue.SimpleQueue()
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOAD)
        self._processes: dict[int, ForkServerProcess] = {}
        # multiprocessing reads exit statuses from pipes in start() as in exitcode; two readers would tear one.
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="launcher", daemon=True)
        self._thread.start()
        self.warm()

    def warm(self) -> None:
        """Start a forkserver that loads PySyft, so that the next launch does not wait for it."""
        self._orders.put(forkserver.ensure_running)

    def launch(self, order: AnyLaunchOrder) -> None:
        self._orders.put(order)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            if isinstance(order, LaunchOrder | DashboardOrder):
                self._tell(self._start(order))
            else:
                with self._lock, contextlib.suppress(OSError, ValueError):
                    order()

    def abandon(self) -> None:
        """End a forkserver that does not answer: the current launch fails, and the next one gets a new forkserver."""
        pid = getattr(forkserver._forkserver, "_forkserver_pid", None)
        if pid:
            signals.to_child(pid, signal.SIGKILL)

    def _start(self, order: AnyLaunchOrder) -> Fact:
        run = datasite_entry.run if isinstance(order, LaunchOrder) else dashboard_entry.run
        process = self._context.Process(target=run, args=(order,), name=order.name)
        try:
            with self._lock:
                process.start()
        except Exception as error:  # noqa: BLE001 - whatever it was, this thread has to go on launching the others
            return LaunchFailed(order.name, order.generation, _why(error))
        pid = process.pid or 0
        self._processes[pid] = process
        return ProcessStarted(order.name, order.generation, pid, start_ticks(pid) or 0)

    def exit_cause(self, pid: int) -> ExitCause:
        """How process ``pid`` exited. Its parent has the status: we, the forkserver, or nobody."""
        process = self._processes.pop(pid, None)
        own = reap(pid)  # its forkserver died first, so it became our child
        if own is not None or process is None:
            return cause_of_code(own)
        return cause_of_code(self._collect(process))

    def _collect(self, process: ForkServerProcess) -> int | None:
        if not self._lock.acquire(timeout=_STATUS_WAIT):
            return None
        try:
            process.join(_STATUS_WAIT)
            return process.exitcode
        finally:
            self._lock.release()

    @staticmethod
    def helpers() -> set[int]:
        """The pids of multiprocessing's own processes, which multiprocessing reaps."""
        # No public name tells them: a stray-reaper that took their status would break the next launch.
        pids = (
            getattr(forkserver._forkserver, "_forkserver_pid", None),
            getattr(resource_tracker._resource_tracker, "_pid", None),
        )
        return {pid for pid in pids if pid}

    def close(self) -> None:
        """End the thread and the forkserver, and wait for both."""
        self._orders.put(None)
        self.abandon()  # it may still be importing, and nothing is left to launch
        self._thread.join(timeout=5)
        stop = getattr(forkserver._forkserver, "_stop", None)
        if stop is not None and forkserver._forkserver._forkserver_pid:  # type: ignore[attr-defined]
            with contextlib.suppress(OSError, ChildProcessError):
                stop()  # closes the pipe that keeps it alive, and waits


def _use(folder: Path) -> None:
    """Have multiprocessing make its sockets in ``folder``, and remove those of a supervisor that was killed. Where the
    path is too long for a socket's address, they stay in a folder of multiprocessing's own, below /tmp."""
    folders.make(folder)
    for left in folder.glob("listener-*"):
        left.unlink(missing_ok=True)
    if len(os.fsencode(folder / "listener-12345678")) <= _LONGEST_ADDRESS:
        process.current_process()._config["tempdir"] = str(folder)  # type: ignore[attr-defined]  # no public name
