"""One run of the supervisor, from lock to last exit: prepares the folders, adopts, runs the engine, cleans up."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from supervisor.effects import lock, processes
from supervisor.effects.launcher import scrub_environment
from supervisor.effects.machine import Machine
from supervisor.effects.run_files import RunFile, RunFiles
from supervisor.engine import Engine
from supervisor.facts import OperatorAsked, ProcessAdopted
from supervisor.policy.launching import datasite_dir, fingerprint, launch_order
from supervisor.record import OperatorRequest
from supervisor.spec import DatasiteSpec, FleetConfig

log = logging.getLogger("fleet")

LOG_FORMAT = "%(asctime)s - %(levelname)s - %(message)s"
_LOG_BYTES = 10 * 1024 * 1024
_LOG_BACKUPS = 5
_POLL = 0.02


class AlreadyRunning(Exception):
    """Another supervisor has this state folder. ``pid`` is its, None when it could not be read."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(f"a supervisor is already running for this state folder (pid {pid})")
        self.pid = pid


@dataclass(frozen=True, slots=True)
class ResetItem:
    """What ``reset: true`` would remove of one datasite."""

    name: str
    path: Path
    size_bytes: int


def reset_plan(config: FleetConfig) -> tuple[ResetItem, ...]:
    """What a start would remove, for datasites that have state to lose."""
    asked = [(spec.name, datasite_dir(config, spec.name)) for spec in config.datasites if spec.reset]
    return tuple(ResetItem(name, path, _size(path)) for name, path in asked if path.is_dir())


def serve(config: FleetConfig, *, echo: bool, reset: tuple[str, ...] = ()) -> None:
    """Run the fleet until it is asked down and is. ``echo``: log lines on standard output as well.

    Raises AlreadyRunning, and OSError when a folder cannot be made or written.
    """
    _prepare_folders(config)
    held = lock.lock(config.state_dir / "supervisor.lock")
    if held is None:
        raise AlreadyRunning(lock.lock_holder(config.state_dir / "supervisor.lock"))
    _log_to(config.log_dir / "fleet.log", echo=echo)
    processes.become_subreaper()
    scrub_environment()
    try:
        _run(config, reset)
    except Exception:
        # The children serve on and are adopted by the next supervisor. Leaving by the ordinary way would not
        # end: multiprocessing joins its children at exit.
        log.critical("the supervisor failed; the datasites go on serving and will be adopted", exc_info=True)
        logging.shutdown()
        os._exit(70)
    finally:
        os.close(held)


def stop_orphans(config: FleetConfig) -> tuple[str, ...]:
    """Stop workers whose supervisor is gone; the names of those that were stopped. Raises AlreadyRunning."""
    if not config.state_dir.is_dir():
        return ()
    held = lock.lock(config.state_dir / "supervisor.lock")
    if held is None:
        raise AlreadyRunning(lock.lock_holder(config.state_dir / "supervisor.lock"))
    try:
        run_files = RunFiles(config.state_dir / "run")
        return _end(run_files, _survivors(run_files), config.shutdown_grace)
    finally:
        os.close(held)


def _run(config: FleetConfig, reset: tuple[str, ...]) -> None:
    run_files = RunFiles(config.state_dir / "run")
    kept = _keep_or_end(config, run_files, reset)
    _wipe(config, reset)
    machine = Machine(config, run_files, version("datasite-fleet"))
    log.info("fleet %s: supervisor started (pid %d), %d datasites", config.name, os.getpid(), len(config.datasites))
    Engine(config, machine).run(_first_messages(config, kept))
    machine.close()
    log.info("fleet %s: everything stopped", config.name)


# --- processes of an earlier supervisor ---


def _keep_or_end(config: FleetConfig, run_files: RunFiles, reset: tuple[str, ...]) -> list[RunFile]:
    """The survivors that this fleet goes on with; those it has no place for are ended."""
    wanted = {spec.name for spec in config.workers} - set(reset)
    survivors = _survivors(run_files)
    strangers = [run for run in survivors if run.name not in wanted]
    for name in _end(run_files, strangers, config.shutdown_grace):
        log.info("%s: an earlier supervisor's process was ended, as this start has no place for it", name)
    return [run for run in survivors if run.name in wanted]


def _survivors(run_files: RunFiles) -> list[RunFile]:
    alive = []
    for run in run_files.read_all():
        if processes.is_same(run.pid, run.created):
            alive.append(run)
        else:
            _forget(run_files, run)
    return alive


def _forget(run_files: RunFiles, run: RunFile) -> None:
    """A dead worker's group may still hold children; a pid that lives again is somebody else's group by now."""
    if processes.start_ticks(run.pid) in (None, run.created):
        processes.sweep_group(run.pid)
    run_files.remove(run.name)


def _end(run_files: RunFiles, runs: list[RunFile], grace: float) -> tuple[str, ...]:
    """SIGTERM all, one grace period for all, then SIGKILL."""
    for run in runs:
        processes.signal_group(run.pid, signal.SIGTERM)
    give_up = time.monotonic() + grace
    while any(processes.is_same(run.pid, run.created) for run in runs) and time.monotonic() < give_up:
        time.sleep(_POLL)
    for run in runs:
        _forget(run_files, run)
    return tuple(run.name for run in runs)


def _first_messages(config: FleetConfig, kept: list[RunFile]) -> Iterable[Any]:
    by_name = {run.name: run for run in kept}
    for spec in config.workers:
        run = by_name.get(spec.name)
        if run is None:
            yield OperatorAsked(spec.name, OperatorRequest.START)
            continue
        yield ProcessAdopted(run.name, run.generation, run.pid, run.created, processes.age(run.created))
        order = launch_order(config, spec, run.generation, len(os.sched_getaffinity(0)))
        if fingerprint(order) != run.fingerprint:
            log.info("%s: its configuration changed while no supervisor ran; restarting it", run.name)
            yield OperatorAsked(run.name, OperatorRequest.RESTART)


# --- folders and logs ---


def _prepare_folders(config: FleetConfig) -> None:
    config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    config.state_dir.chmod(0o700)
    config.log_dir.mkdir(parents=True, exist_ok=True)
    for spec in config.workers:
        folder = datasite_dir(config, spec.name) if isinstance(spec, DatasiteSpec) else config.state_dir / spec.name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def _wipe(config: FleetConfig, names: tuple[str, ...]) -> None:
    for name in names:
        folder = datasite_dir(config, name)
        shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
        log.warning("%s: reset: removed %s", name, folder)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _log_to(path: Path, *, echo: bool) -> None:
    logging.raiseExceptions = False  # a full log disk must not stop a factory
    handlers: list[logging.Handler] = [
        RotatingFileHandler(path, maxBytes=_LOG_BYTES, backupCount=_LOG_BACKUPS, encoding="utf-8")
    ]
    if echo:
        handlers.append(logging.StreamHandler(sys.stdout))
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
