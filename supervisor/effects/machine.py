"""The real effects of the engine: one object that joins the others. It decides nothing."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from fleet_common import folders, signals
from fleet_common.contract import LaunchOrder
from fleet_common.layout import StateFolder
from fleet_common.signals import is_same
from supervisor.effects import clock, evidence, leash
from supervisor.effects.announcer import Announcer
from supervisor.effects.assigner import Assigner
from supervisor.effects.board import Board, Pinned
from supervisor.effects.cgroups import Cgroups
from supervisor.effects.control import ControlServer, ReloadFailed
from supervisor.effects.doors import Doors
from supervisor.effects.gauges import Gauges
from supervisor.effects.gpu_watch import GpuWatch
from supervisor.effects.hooks import Hooks
from supervisor.effects.inbox import Inbox
from supervisor.effects.known import Known
from supervisor.effects.launcher import Launcher
from supervisor.effects.lock import lock
from supervisor.effects.places import write_place
from supervisor.effects.probe_keys import ProbeKeyFiles
from supervisor.effects.prober import Prober
from supervisor.effects.processes import reap_strays
from supervisor.effects.recorder import Kept, Recorder
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.effects.sdnotify import Notifier
from supervisor.effects.service import ServiceThread
from supervisor.effects.watcher import Watcher
from supervisor.facts import ProcessAdopted, ProcessStarted
from supervisor.history import FLEET, Event, EventKind
from supervisor.messages import Exited, Message, ReloadAsked, Signalled
from supervisor.orders import Configure, Probe
from supervisor.policy import launching
from supervisor.policy.fleet import FleetMessage, Outcome
from supervisor.policy.health import is_routine
from supervisor.policy.placement import Placement
from supervisor.policy.readiness import start_limit
from supervisor.policy.reconcile import fingerprint
from supervisor.record import ExitCause, WorkerRecord
from supervisor.snapshot import FleetSnapshot, SupervisorFacts, take
from supervisor.spec import DASHBOARD_NAME, DatasiteSpec, FleetConfig, WorkerSpec

log = logging.getLogger("fleet")


class Machine:
    """Create it in the main thread of the supervisor, which must hold the state folder's lock.

    ``notifier`` speaks to the service manager, if there is one; ``load`` reads the fleet.yaml anew, for a reload;
    ``recorder`` stays its maker's to close; ``assigner`` knows who has which GPU, ``known`` who has been ready before.
    """

    def __init__(
        self,
        config: FleetConfig,
        run_files: RunFiles,
        recorder: Recorder,
        notifier: Notifier,
        load: Callable[[], FleetConfig],
        version: str,
        assigner: Assigner,
        cgroups: Cgroups,
        known: Known,
    ) -> None:
        self._relocked = -1  # the lock, where it had to be taken again
        self._unmended = ""  # why what is lost cannot be made again, once told
        self._known = known
        self._config = config
        self._run_files = run_files
        self._recorder = recorder
        self._load = load
        self._assigner = assigner
        self._launched_with: dict[str, tuple[str, ...]] = {}  # GPUs; a reload may have other ones since
        self._version = version
        self._started_at = clock.monotonic()
        self._watched: dict[int, int] = {}  # pid to start time
        self._newborn: dict[int, int] = {}  # the same of those that this turn tells of
        self._ended: dict[int, int] = {}  # the same of the dead that are not yet cleared away
        self._evidence = evidence.Evidence()
        self._cgroups = cgroups
        self._gauges = Gauges()
        self._board = Board(config)
        self._inbox = Inbox(config.state.pulse_socket)
        self._inbox.catch(signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP)
        self._service = ServiceThread()
        self._hooks = Hooks(config.on_event, config.path.parent)
        self._announcer = Announcer(notifier, self._started_at, start_limit(config))
        self._probe_keys = ProbeKeyFiles(config.state.worker)
        self._prober = Prober(self._service, self._inbox.post, self._probe_keys)
        self._gpu_watch = GpuWatch(assigner, self._inbox.post)
        self._watcher = Watcher(self._board.read, cgroups, self._inbox.post)
        self._hold()
        self._launcher = Launcher(self._inbox.post, config.state.forkserver)
        self._control = ControlServer(self._board, self.picture, self._inbox.post, self._load_asked, self.place)
        self._control.open(config.state.control_socket, self._service)
        self._doors = Doors(self._inbox.ring)
        self._doors.keep(*_kept(config.state))

    def close(self) -> None:
        self._doors.close()
        self._gpu_watch.close()
        self._watcher.close()
        self._board.close()
        self._control.close()
        self._service.close()
        self._launcher.close()
        self._inbox.close()
        self._hooks.close()
        self._announcer.close()

    # --- what the engine asks ---

    @property
    def cores(self) -> int:
        return len(os.sched_getaffinity(0))

    def now(self) -> float:
        return clock.monotonic()

    def wait(self, timeout: float | None) -> list[Message]:
        self._announcer.feed(self.now())
        messages = self._inbox.wait(self._announcer.patience(timeout, self.now()))
        self._announcer.look(self._board.read().records, self.now())
        self._run_files.retry()
        if lost := self._doors.lost():
            self._mend(lost)
        self._newborn = {message.pid: message.created for message in messages if isinstance(message, ProcessStarted)}
        caught = {message.name for message in messages if isinstance(message, Signalled)}
        if signal.SIGCHLD.name in caught:
            self._reap_strays()
            self._launcher.warm()  # in case the forkserver died; otherwise this does nothing
        if signal.SIGHUP.name in caught:
            self._announcer.reloading(self.now())
            self._service.call(self._reload)
        return messages

    def _mend(self, lost: list[Path]) -> None:
        """Make again what somebody has removed from the state folder. On failure, the next look tries again."""
        state = self._config.state
        try:
            for folder in (state.root, state.datasites, state.forkserver):
                folders.make(folder)
            self._recorder.restore()
            self._run_files.restore()
            if state.lock in lost:
                self._lock_again(state.lock)
            if state.pulse_socket in lost:
                self._inbox.reopen()
            if state.control_socket in lost:
                self._control.reopen()
            write_place(self._config)
            self._remember()
        except OSError as error:
            if str(error) != self._unmended:
                log.error("the state folder has lost %s, which cannot be made again: %s", _names(lost), error)
            self._unmended = str(error)
            return
        self._unmended = ""
        self._doors.keep(*_kept(state))
        log.warning("the state folder had lost %s; made again", _names(lost))

    def _remember(self) -> None:
        pinned = self._board.read()
        if not pinned.stopping:
            self._recorder.ledger(pinned.records, running=True)

    def _lock_again(self, path: Path) -> None:
        """Raises OSError when another supervisor has it by now."""
        fd = lock(path)
        if fd is None:
            raise BlockingIOError(f"another supervisor has {path}")
        self._relocked = fd

    def _reap_strays(self) -> None:
        hooks = self._hooks.children()
        if hooks is not None:  # else the exit of that child causes the next round
            reap_strays(self._watched.keys() | self._launcher.helpers() | hooks)

    def launch(self, spec: WorkerSpec, generation: int) -> None:
        self._launched_with[spec.name] = self._assigner.of(spec.name)
        shown = self._assigner.shown(spec.name)
        order = launching.launch_order(self._config, spec, generation, self.cores, shown)
        group = self._cgroups.make(spec.name)
        self._hold_one(spec)
        self._probe_keys.forget(spec.name)
        if isinstance(order, LaunchOrder):
            order = replace(order, existed=spec.name in self._known)
        self._launcher.launch(replace(order, cgroup=group))

    def _hold(self) -> None:
        """Set the limits of the configuration in the kernel, where it can enforce them."""
        host = launching.host_limits(self._config)
        self._cgroups.limit_all(host.memory, host.cpu_percent)
        for spec in self._config.datasites:
            self._hold_one(spec)

    def _hold_one(self, spec: WorkerSpec) -> None:
        if isinstance(spec, DatasiteSpec):
            may = launching.limits_of(self._config, spec)
            self._cgroups.limit(spec.name, may.memory, may.cpu_percent)

    def terminate(self, pid: int) -> None:
        self._signal(pid, signal.SIGTERM)

    def kill(self, pid: int) -> None:
        self._signal(pid, signal.SIGKILL)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        """To the whole group of a worker. A pid that no fact has told us is nobody's."""
        signals.send_group(pid, self._watched.get(pid) or self._newborn.get(pid, 0), number)

    def probe(self, order: Probe, spec: WorkerSpec) -> None:
        self._prober.probe(order, spec)

    def abandon_launches(self) -> None:
        self._launcher.abandon()

    def configure(self, order: Configure, spec: WorkerSpec) -> None:
        """Write the settings where the worker reads them, and signal it."""
        if not isinstance(spec, DatasiteSpec):
            return
        path = self._config.state.worker(spec.name).settings
        settings = launching.live_settings(self._config, spec, order.generation)
        try:
            folders.write_text(path, settings.to_json().decode(), lasting=False)  # for this very process only
        except OSError as error:
            log.error("%s: cannot write its new settings (%s); restart it to apply them", spec.name, error)
            return
        signals.send(order.pid, self._watched.get(order.pid, 0), signal.SIGHUP)

    def watch(self, started: ProcessStarted | ProcessAdopted, spec: WorkerSpec) -> bool:
        """Watch the process from now on; False when it has ended already."""
        try:
            pidfd = os.pidfd_open(started.pid)
        except ProcessLookupError:
            return False
        if not is_same(started.pid, started.created):
            os.close(pidfd)
            return False
        self._watched[started.pid] = started.created
        self._inbox.watch(started.name, started.generation, started.pid, pidfd)
        if isinstance(spec, DatasiteSpec):
            self._watcher.give_cores(spec, started.pid, self._config)
        if isinstance(started, ProcessStarted):
            identity = (started.name, started.generation, started.pid, started.created)
            gpus = self._launched_with.get(spec.name, ())
            self._run_files.write(RunFile(*identity, boot_id(), fingerprint(spec), spec.port, gpus))
        return True

    def collect(self, exited: Exited) -> ExitCause:
        """The cause of an exit."""
        self._ended[exited.pid] = self._watched.pop(exited.pid, 0) or self._newborn.get(exited.pid, 0)
        limit = self._cgroups.out_of_memory(exited.name)
        work = self._config.state.worker(exited.name).work
        return self._evidence.explain(self._launcher.exit_cause(exited.pid), exited.pid, work, limit)

    def clear(self, exited: Exited) -> None:
        """Remove all that the dead process left; takes as long as its other processes take to end."""
        created = self._ended.pop(exited.pid, 0)
        signals.sweep_group(exited.pid, created)
        leash.sweep(self._config.state.worker(exited.name).leash, created, but=self._watched)
        self._cgroups.end(exited.name)
        self._run_files.remove(exited.name)

    def place(self, reload: ReloadAsked, running: Collection[str]) -> Placement:
        return self._assigner.placed(reload.config, reload.cards, running)

    def use(self, config: FleetConfig, placement: Placement) -> None:
        self._assigner.use(placement)
        self._config = config
        write_place(config)
        self._hold()
        self._hooks.use(config.on_event)

    def note(self, message: FleetMessage, outcome: Outcome, now: float) -> None:
        if isinstance(message, Kept):
            self._recorder.message(message, now)
        for fact, step in outcome.steps:
            self._recorder.fact(fact, step, now, routine=is_routine(fact, step.record))

    def tell(self, events: Iterable[Event]) -> None:
        at = clock.wall()
        for event in events:
            self._recorder.event(event, at)
            self._hooks.tell(event.to_dict(at))
            if event.event is EventKind.READY and event.name != DASHBOARD_NAME:
                self._known.add(event.name)
            if event.event in (EventKind.RELOADED, EventKind.RELOAD_REFUSED):
                self._announcer.reloaded(self._board.read().records, self.now())

    def pin(self, config: FleetConfig, records: Mapping[str, WorkerRecord], *, stopping: bool) -> None:
        self._board.pin(config, records, stopping=stopping)
        if stopping:
            self._announcer.stopping()
        else:  # a fleet that stops in order leaves nothing to remember
            self._recorder.ledger(records, running=True)

    # --- what others ask ---

    def picture(self, pinned: Pinned) -> FleetSnapshot:
        now = clock.monotonic()
        pids = {name: record.pid for name, record in pinned.records.items() if record.pid is not None}
        spoke = {name: pid for name, pid in pids.items() if pinned.records[name].status}  # others may still be joining
        about = SupervisorFacts(
            os.getpid(),
            self._version,
            self._started_at,
            pinned.stopping,
            pinned.revision,
            self._cgroups.held,
            self._cgroups.held_otherwise(spoke),
            self._watcher.host,
        )
        return take(pinned.config, pinned.records, self._gauges.read(pids, now), about, now, clock.wall())

    def _load_asked(self) -> ReloadAsked:
        """The fleet.yaml and the GPUs of now. Raises ReloadFailed; GPUs that are not visible may still be there."""
        config = self._load()
        seen = self._assigner.look(config)
        if seen.trouble and self._assigner.in_use:
            raise ReloadFailed(f"{seen.trouble}, and datasites use GPUs")
        return ReloadAsked(config, seen.cards)

    def _reload(self) -> None:
        """In a thread: a fleet.yaml, or a secret that it names, may be on a slow disk."""
        try:
            self._inbox.post(self._load_asked())
        except ReloadFailed as error:
            self._inbox.post(Event(FLEET, EventKind.RELOAD_REFUSED, f"reload refused: {error}", warning=True))


def _kept(state: StateFolder) -> tuple[Path, ...]:
    """What must be there while a supervisor runs."""
    return state.lock, state.control_socket, state.pulse_socket, state.run, state.history.root


def _names(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)
