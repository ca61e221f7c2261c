"""One run of the supervisor, from lock to last exit: prepares the folders, adopts, runs the engine, cleans up."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from fleet_common import folders, logs, signals
from fleet_common.process import become_subreaper
from supervisor.config import ConfigError, load
from supervisor.effects import clock, leash, lock, processes
from supervisor.effects.assigner import Assigner
from supervisor.effects.cgroups import Cgroups
from supervisor.effects.control import ReloadFailed
from supervisor.effects.known import Known, refuse_empty
from supervisor.effects.machine import Machine
from supervisor.effects.places import listens, write_place
from supervisor.effects.recorder import Recorder, Remembered, forget, read_ledger, restored
from supervisor.effects.run_files import RunFile, RunFiles
from supervisor.effects.sdnotify import Notifier
from supervisor.effects.surroundings import keep_secrets
from supervisor.engine import Engine
from supervisor.facts import OperatorAsked, ProcessAdopted
from supervisor.history import FLEET, Event, EventKind
from supervisor.messages import Message
from supervisor.policy.fleet import gpu_found
from supervisor.policy.placement import ImpossibleGpus, UnseenGpus
from supervisor.policy.reconcile import fingerprint
from supervisor.record import By, OperatorRequest, Wanted, WorkerRecord
from supervisor.spec import DatasiteSpec, FleetConfig

log = logging.getLogger("fleet")

_POLL = 0.02
_OWN_ROOM = "/"
"""Where supervisor and forkserver work: it never goes away, and only root can put a file there."""


class AlreadyRunning(Exception):
    """Another supervisor has this state folder. ``pid``: its process; None when unreadable."""

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
    to_reset = [(spec.name, config.state.worker(spec.name).root) for spec in config.datasites if spec.reset]
    return tuple(ResetItem(name, path, _size(path)) for name, path in to_reset if path.is_dir())


def serve(config: FleetConfig, *, echo: bool, reset: tuple[str, ...] = ()) -> None:
    """Run the fleet until it is told to stop, and has stopped. ``echo``: print log lines on standard output as well.

    Raises EmptyState, AlreadyRunning, ImpossibleGpus or UnseenGpus before anything is started or stopped, Unsafe when
    another user may control a folder, and OSError when one cannot be created or written.
    """
    refuse_empty(config)
    _prepare_folders(config)
    lock_file = lock.lock(config.state.lock)
    if lock_file is None:
        raise AlreadyRunning(lock.lock_holder(config.state.lock))
    if listens(config.state_dir):
        os.close(lock_file)
        raise AlreadyRunning(None)
    _log_to(config.log_dir / "fleet.log", echo=echo)
    become_subreaper()
    environ = dict(os.environ)  # a reload reads ${env:…} as this start did
    keep_secrets()
    try:
        assigner = Assigner(config.state.gpus)
        assigner.start(config, _gpus_of_survivors(config))
        _run(config, reset, environ, assigner)
    except (ImpossibleGpus, UnseenGpus):
        raise
    except Exception:
        # The datasites keep running, and the next supervisor adopts them. An ordinary exit would block:
        # multiprocessing joins its children.
        log.critical(
            "the supervisor failed; the datasites keep running and the next supervisor adopts them", exc_info=True
        )
        logging.shutdown()
        os._exit(70)
    finally:
        os.close(lock_file)


def stop_orphans(config: FleetConfig) -> tuple[str, ...]:
    """Stop workers whose supervisor is gone; returns their names. Raises AlreadyRunning, and Unsafe where another user
    could have written the run files and so chosen what is killed."""
    if listens(config.state_dir):
        raise AlreadyRunning(lock.lock_holder(config.state.lock))
    if not config.state_dir.is_dir():
        return ()
    _check_folders(config)
    lock_file = lock.lock(config.state.lock)
    if lock_file is None:
        raise AlreadyRunning(lock.lock_holder(config.state.lock))
    try:
        run_files = RunFiles(config.state.run)
        stopped = _end(run_files, _survivors(run_files), config.shutdown_grace)
        swept = _sweep(config)
        with contextlib.suppress(OSError):  # on a disk that is read-only by now; the processes have ended all the same
            for socket in (config.state.control_socket, config.state.pulse_socket):
                socket.unlink(missing_ok=True)
            forget(config.state.history)
        return (*stopped, *swept)
    finally:
        os.close(lock_file)


def _gpus_of_survivors(config: FleetConfig) -> dict[str, tuple[str, ...] | None]:
    """The datasites that run, each with the GPUs that its process was launched with."""
    alive = RunFiles(config.state.run).read_all()
    return {run.name: run.gpus for run in alive if signals.is_same(run.pid, run.created)}


def _run(
    config: FleetConfig,
    reset: tuple[str, ...],
    environ: Mapping[str, str],
    assigner: Assigner,
) -> None:
    os.chdir(_OWN_ROOM)
    write_place(config)
    run_files = RunFiles(config.state.run)
    past = read_ledger(config.state.history, [spec.name for spec in config.workers])
    kept = _keep_or_end(config, run_files, reset)
    known = Known(config)
    known.forget(spec.name for spec in config.datasites if spec.reset)
    _wipe(config, reset)
    recorder = Recorder(config.state.history)
    recorder.rules({spec.name: config.rules(spec) for spec in config.workers}, clock.monotonic())
    load_again = lambda: _load_again(config.path, environ)  # noqa: E731 - what a reload calls
    notifier = Notifier.from_environ(environ)
    groups = Cgroups.find(environ)
    machine = Machine(
        config, run_files, recorder, notifier, load_again, version("datasite-fleet"), assigner, groups, known
    )
    engine = Engine(config, machine, _restored(config, past))
    engine.run([_about(EventKind.SUPERVISOR_STARTED, config), *_first_messages(config, kept, past, assigner)])
    machine.tell([_about(EventKind.SUPERVISOR_STOPPED, config)])
    machine.close()
    _sweep(config)
    recorder.ledger({}, running=False)
    recorder.close()
    log.info("fleet %s: everything stopped", config.name)


def _load_again(path: Path, environ: Mapping[str, str]) -> FleetConfig:
    try:
        return load(path, environ)
    except ConfigError as error:
        raise ReloadFailed(str(error)) from error


def _about(kind: EventKind, config: FleetConfig) -> Event:
    what = "started" if kind is EventKind.SUPERVISOR_STARTED else "stopped"
    text = f"fleet {config.name}: supervisor {what} (pid {os.getpid()}), {len(config.datasites)} datasites"
    return Event(FLEET, kind, text, pid=os.getpid())


def _restored(config: FleetConfig, past: Mapping[str, Remembered]) -> dict[str, WorkerRecord]:
    fresh = {spec.name: WorkerRecord(spec.name, config.rules(spec)) for spec in config.workers}
    return {name: restored(record, past[name]) for name, record in fresh.items() if name in past}


# --- processes of an earlier supervisor ---


def _keep_or_end(config: FleetConfig, run_files: RunFiles, reset: tuple[str, ...]) -> list[RunFile]:
    """The survivors that this fleet keeps; stops the others."""
    wanted = {spec.name for spec in config.workers} - set(reset)
    survivors = _survivors(run_files)
    strangers = [run for run in survivors if run.name not in wanted]
    for name in _end(run_files, strangers, config.shutdown_grace):
        log.info(
            "%s: stopped a process of an earlier supervisor: it is to be reset, or is no longer in fleet.yaml", name
        )
    kept = [run for run in survivors if run.name in wanted]
    for name in _sweep(config, but={run.name for run in kept}):
        log.info("%s: killed a process that an earlier supervisor left behind", name)
    return kept


def _sweep(config: FleetConfig, but: Iterable[str] = ()) -> list[str]:
    """Kill every process with a leash of this fleet, with or without a run file; returns the names of its workers."""
    folders = [folder for folder in (config.state.datasites).glob("*") if folder.is_dir()]
    names = {*(folder.name for folder in folders), *(spec.name for spec in config.workers)} - set(but)
    return [name for name in sorted(names) if leash.sweep(config.state.worker(name).leash)]


def _survivors(run_files: RunFiles) -> list[RunFile]:
    alive = []
    for run in run_files.read_all():
        if signals.is_same(run.pid, run.created):
            alive.append(run)
        else:
            _forget(run_files, run)
    return alive


def _forget(run_files: RunFiles, run: RunFile) -> None:
    """The group of a dead worker may still have children."""
    signals.send_group(run.pid, run.created, signal.SIGKILL)
    signals.sweep_group(run.pid, run.created)
    run_files.remove(run.name)


def _end(run_files: RunFiles, runs: list[RunFile], grace: float) -> tuple[str, ...]:
    """SIGTERM all, one grace period for all, then SIGKILL."""
    for run in runs:
        signals.send_group(run.pid, run.created, signal.SIGTERM)
    give_up = time.monotonic() + grace
    while any(signals.is_same(run.pid, run.created) for run in runs) and time.monotonic() < give_up:
        time.sleep(_POLL)
    for run in runs:
        _forget(run_files, run)
    return tuple(run.name for run in runs)


def _first_messages(
    config: FleetConfig,
    kept: list[RunFile],
    past: Mapping[str, Remembered],
    assigner: Assigner,
) -> Iterable[Message]:
    by_name = {run.name: run for run in kept}
    for spec in config.workers:
        run = by_name.get(spec.name)
        if run is not None:
            age = processes.age(run.created)
            yield ProcessAdopted(run.name, run.generation, run.pid, run.created, age, run.port or spec.port)
            if fingerprint(spec) != run.fingerprint:
                why = "its configuration changed while no supervisor was running"
                yield OperatorAsked(run.name, OperatorRequest.RESTART, By.ADOPTION, why)
            elif isinstance(spec, DatasiteSpec) and assigner.sees_others(run.name, run.gpus):
                yield OperatorAsked(run.name, OperatorRequest.RESTART, By.ADOPTION, "gpu: it gets different GPUs")
            elif run.gpus == () and (found := assigner.of(run.name)):
                yield gpu_found(run.name, found)
        elif spec.name in past and past[spec.name].wanted is Wanted.DOWN:
            log.info("%s: stays down as before: %s", spec.name, past[spec.name].reason or "it was stopped")
        else:
            yield OperatorAsked(spec.name, OperatorRequest.START, By.FLEET)


# --- folders and logs ---


def _prepare_folders(config: FleetConfig) -> None:
    folders.check(config.state_dir, make=True)
    folders.make(config.state_dir.resolve())
    folders.check(config.log_dir, make=True)
    _check_folders(config)
    for folder in (config.state.run, config.state.history.root, config.state.datasites):
        folders.make(folder)
    for spec in config.workers:
        folders.make(config.state.worker(spec.name).root)


def _check_folders(config: FleetConfig) -> None:
    """Raises Unsafe. A datasite checks its own folder itself."""
    folders.check(config.state_dir)
    folders.check_inside(config.state_dir)
    for folder in (config.state.run, config.state.history.root, config.state.datasites):
        if folder.is_dir():
            folders.make(folder)
            folders.check_inside(folder)


def _wipe(config: FleetConfig, names: tuple[str, ...]) -> None:
    for name in names:
        folder = config.state.worker(name).root
        shutil.rmtree(folder)
        folders.make(folder)
        log.warning("%s: reset: removed %s", name, folder)


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _log_to(path: Path, *, echo: bool) -> None:
    handlers = logs.handlers_for(path, sys.stdout if echo else None)
    for logger in (log, logging.getLogger("fleet_common")):
        for handler in handlers:
            logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
