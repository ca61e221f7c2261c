"""The lifecycle of one datasite: open the engine on its state, serve, register, send heartbeats, and stop cleanly.

It connects the parts of this package and decides little itself. It uses its engine only through ``engine.Engine``.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import queue
import shutil
import threading
import time
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

from datasite_worker import children, kept, troubles
from datasite_worker.activity import Activity
from datasite_worker.centre.central_link import CentralLink, Profile
from datasite_worker.credentials import AdminLogin, Identity, admin_login, identity, show
from datasite_worker.data.datasets import Datasets
from datasite_worker.engine import Engine, HostedDatasite, Hosting, Reception, Serving
from datasite_worker.jobs.errand import Errand
from datasite_worker.jobs.queue import JobQueue
from datasite_worker.jobs.rules import threads_of
from datasite_worker.jobs.zygote import Zygote
from datasite_worker.means import gpu, load
from datasite_worker.means.limits import Limiter, threads_within
from datasite_worker.refusals import Refusals
from datasite_worker.reporting import Report
from fleet_common import listening, logs, process, state_files
from fleet_common.contract import (
    STATUS_PATH,
    LaunchOrder,
    LiveSettings,
    Phase,
    StatusDocument,
)
from fleet_common.layout import WorkerFolder
from fleet_common.untrusted import Unfit

logger = logging.getLogger(__name__)

_SELF_CHECK = 2.0
_ROUND = 5.0
_STATUS_KEYS = ("factory_name", "factory_hostname", "factory_port", "device", "status")


class _Word(Enum):
    """Messages to ``run``. They go through a SimpleQueue: a signal handler may use it, but may not set an Event."""

    STOP = "stop"
    SETTINGS = "settings"


class Lifecycle:
    """A datasite of ``order``, hosted by ``engine``. ``launch_datasite`` serves; ``run`` does all and waits for
    ``stop``."""

    def __init__(self, order: LaunchOrder, engine: Engine, pid: int = 0) -> None:
        self.order = order
        self.factory_name = order.name
        self.state_dir, self.log_dir = Path(order.state_dir), Path(order.log_dir)
        self._folder = WorkerFolder(self.state_dir)
        self._engine = engine
        self._settings = order.settings
        self._reset = order.reset
        self._words: queue.SimpleQueue[_Word] = queue.SimpleQueue()
        self._hosted: HostedDatasite | None = None
        self._serving: Serving | None = None
        self._zygote: Zygote | None = None
        self._jobs: JobQueue | None = None
        self._link: CentralLink | None = None
        self._refusals = Refusals()
        self._weight = load.Weight()
        self._orphans = children.Orphans()
        self._chores_due = 0.0
        self.setup_logging()
        self.device = self.detect_device()
        self._report = Report(self._first_status(pid), order.pulse_address)
        self._limiter = Limiter(self.state_dir, self._settings.limits, self._note_limits)
        self._activity = Activity(lambda: self._report.renew(self._activity.told))
        self._datasets = Datasets(
            self.state_dir, self._settings.datasets, lambda said: self._report.update(datasets=said)
        )
        self._report.document = replace(self._report.document, datasets=self._datasets.known())

    def _first_status(self, pid: int) -> StatusDocument:
        order = self.order
        name = listening.reachable_name(order.advertise)
        return StatusDocument(
            order.name, name, order.port, self.device, "starting", generation=order.generation, pid=pid
        )

    # --- steps of the lifecycle ---

    def detect_device(self) -> str:
        """``cuda:0`` when this process sees a GPU, else ``cpu``."""
        device = gpu.device()
        logger.info("device: %s", device)
        return device

    def setup_logging(self) -> None:
        """Write to ``<log_dir>/<factory_name>.log``, and to the console when verbose."""
        logs.log_to(self.log_dir / f"{self.factory_name}.log", console=self.order.verbose)

    def launch_datasite(self) -> Any:
        """Serve in this process; the engine's own handle for it, PySyft's ``ServerHandle``.

        Raises PortTaken and ConfigurationFailure, before anything is touched, and NoSpace.
        """
        with troubles.named(self.state_dir):
            return self._launch()

    def _launch(self) -> Any:
        self._make_zygote()
        order = self.order
        listener = listening.bind(order.hostname, order.port)
        try:
            process.claim(self.state_dir)
            self._remove_state()
            troubles.refuse_full_disk(self.state_dir)
            hosted = self._hosted = self._open()
        except BaseException:
            listener.close()
            raise
        probe_key = process.probe_key(self.state_dir)
        reception = Reception(self._loaded_status, probe_key, self._refusals, self._limiter)
        self._serving = hosted.serve(listener, reception)
        self._report.update(status="running", phase=Phase.SERVING)
        logger.info("launched on port %d", order.port)
        host = listening.own_address(order.hostname)
        return hosted.handle(f"http://[{host}]" if ":" in host else f"http://{host}", order.port, self.shutdown)

    def _open(self) -> HostedDatasite:
        logger.info("launching %s", self._engine.label)
        load.begin()
        who = self._identity()
        hosted = self._hosted = self._engine.open(self._hosting(who), self._activity)
        self._report.update(interrupted_jobs=hosted.interrupted)
        self._jobs = JobQueue(
            hosted.jobs,
            self._zygote,
            lambda: Zygote.fresh(self._engine.zygote_program),
            self._errand,
            self._activity,
            self._note_cut_off,
            self._settings.limits.sessions,
        )
        self._limiter.sessions.jobs = self._jobs
        self._jobs.start()
        admin = self.order.admin
        self.create_admin_user(admin.email, admin.name, admin.password)
        hosted.bound(self._settings.training_bounds)
        kept.mark(self._folder, who.uid)
        hosted.approve(self._settings.approved_code)
        return hosted

    def _identity(self) -> Identity:
        """Drawn for a new datasite. Raises ConfigurationFailure where an old one has lost what it had."""
        existed = self.order.existed and not self.order.reset
        kept.check(self._folder, existed=existed)
        who = identity(self.state_dir)
        kept.check_database(self._folder, who.uid, existed=existed)
        return who

    def _hosting(self, who: Identity) -> Hosting:
        return Hosting(
            self.order.name,
            who,
            self.state_dir,
            dev_mode=self.order.dev_mode,
            auto_approval=self.order.association_request_auto_approval,
            sessions=self._settings.limits.sessions,
            access=self.order.access,
        )

    def _make_zygote(self) -> None:
        """Fork it before there is any thread, socket or database. Where threads exist already, as in a notebook, the
        first job waits for a new interpreter."""
        if self._zygote is None and children.may_fork():
            self._zygote = Zygote.forked(self._engine.work)

    def _errand(self, running: int) -> Errand:
        compute = self.order.compute
        threads = threads_of(compute.threads, running, fixed=compute.threads_fixed)
        if not compute.threads_fixed:
            threads = threads_within(threads, self._settings.limits.cpu_percent)
        return Errand(
            self.factory_name,
            str(self.state_dir),
            threads=threads,
            gpu_memory_bytes=compute.gpu_memory_bytes,
            dev_mode=self.order.dev_mode,
            log=str(self.log_dir / f"{self.factory_name}.log"),
        )

    def _note_cut_off(self, job: str, why: str) -> None:
        self._report.renew(
            lambda: {
                "jobs_cut_off": self._report.document.jobs_cut_off + 1,
                "last_job_cut_off": f"{job}: {why}",
            }
        )

    def _remove_state(self) -> None:
        """Delete the state once if the order says so, after this process has claimed port and folder."""
        if not self._reset:
            return
        self._reset = False
        for doomed in self._doomed():
            logger.warning("reset: removing %s", doomed)
            shutil.rmtree(doomed) if doomed.is_dir() and not doomed.is_symlink() else doomed.unlink()

    def _doomed(self) -> list[Path]:
        """All state, except this process's working directory and its leash."""
        folder = WorkerFolder(self.state_dir)
        work = folder.work
        inside = sorted(work.iterdir()) if work.is_dir() else []
        return [path for path in sorted(self.state_dir.iterdir()) if path not in (work, folder.leash)] + inside

    def create_admin_user(self, admin_email: str, admin_name: str, admin_password: str | None) -> AdminLogin:
        """Ensure that a user with role ADMIN exists. An existing one keeps its password; None draws a strong one.

        The datasite's own admin is the one that ``admin.json`` shows.
        """
        login = admin_login(self.state_dir, admin_email, admin_name, admin_password)
        if admin_email == self.order.admin.email:
            show(self.state_dir, login)
        if self._launched().create_admin(login):
            logger.info("admin created: %s", login.email)
        return login

    def register_with_dashboard(self) -> bool:
        """Register once. True when the dashboard accepted it. Limited by the link's time-outs; never raises."""
        return self._central().register()

    def send_heartbeat(self) -> bool:
        """Send one heartbeat. True when the dashboard accepted it. Limited by the link's time-outs; never raises."""
        return self._central().beat()

    def status_endpoint(self) -> dict[str, Any]:
        """What ``factory.status`` answers: factory_name, factory_hostname, factory_port, device, status, and what
        trains: active_experiments, last_training_completion; and how busy the host is: current_load."""
        said = self._report.document
        loads = {"current_load": load.current_load(self._latency())}
        return {key: getattr(said, key) for key in _STATUS_KEYS} | self._activity.told() | loads

    def _loaded_status(self) -> load.LoadedStatus:
        return load.loaded(self._report.document, self._latency(), self._weight.memory_mb)

    def _latency(self) -> float:
        return self._link.latency_ms if self._link is not None else 0.0

    def run(self) -> None:
        """Launch, register, send heartbeats, and serve until ``stop``. Raises RuntimeError when the HTTP thread
        dies, and KnownFailure for what is wrong with its database or its disk."""
        with troubles.named(self.state_dir):
            self._serve_until_stopped()

    def _serve_until_stopped(self) -> None:
        self.launch_datasite()
        hosted = self._launched()
        self._take_settings()
        if self.order.dashboard_url:
            self._central().start()
        threading.Thread(target=self._offer_status, name="endpoint", daemon=True).start()
        self._datasets.look(hosted.datasets)
        while (word := self._wait_for_word()) is not _Word.STOP:
            if word is _Word.SETTINGS:
                self._take_settings()
            self._look_around()
        self._wind_down()

    def stop(self) -> None:
        """Ask ``run`` to end; may be called from a signal handler."""
        self._words.put(_Word.STOP)

    def reload(self) -> None:
        """Ask ``run`` to read the live settings; may be called from a signal handler."""
        self._words.put(_Word.SETTINGS)

    def shutdown(self) -> None:
        """Sign off, stop serving, and end PySyft's threads, so that the interpreter can end. For callers of
        ``launch_datasite`` in Python; a worker process ends without it."""
        self._wind_down()
        if self._hosted is not None:
            self._hosted.close()

    def _wind_down(self) -> None:
        logger.info("stopping")
        self._report.update(status="stopping", phase=Phase.STOPPING)
        if self._link is not None:
            self._link.stop()
        if self._serving is not None:
            self._serving.stop()
        if self._jobs is not None:
            self._jobs.stop()
        logger.info("stopped")

    # --- inside ---

    def _wait_for_word(self) -> _Word | None:
        with contextlib.suppress(queue.Empty):
            return self._words.get(timeout=_ROUND)
        return None

    def _look_around(self) -> None:
        if self._serving is not None and not self._serving.alive:
            raise RuntimeError("the HTTP server stopped unexpectedly")
        self._datasets.look(self._launched().datasets)
        self._weight.look()
        self._limiter.look()
        self._note_limits()
        self._note_refusals()
        if time.monotonic() >= self._chores_due:
            self._chores_due = time.monotonic() + children.ROUND
            self._orphans.reap()
            logs.trim_output()

    def _take_settings(self) -> None:
        """Apply the live settings that the supervisor left for this generation. A broken file changes nothing."""
        path = WorkerFolder(self.state_dir).settings
        settings = state_files.read(path, LiveSettings)
        if isinstance(settings, Unfit):
            logger.warning("%s cannot be used: %s", path, settings.why)
        elif settings is not None and settings.generation == self.order.generation:
            self._apply(settings)

    def _apply(self, settings: LiveSettings) -> None:
        self._settings = settings
        self._limiter.use(settings.limits)
        self._datasets.want(settings.datasets)
        if self._jobs is not None:
            self._jobs.allow(settings.limits.sessions)
        if self._hosted is not None:
            self._hosted.bound(settings.training_bounds)
            self._hosted.approve(settings.approved_code)
        logger.info(
            "settings: heartbeat every %g s, capabilities %s", settings.heartbeat_interval, settings.capabilities
        )
        self._central().apply(settings.heartbeat_interval, settings.capabilities, settings.region, settings.location)

    def _central(self) -> CentralLink:
        if self._link is None:
            self._link = CentralLink(
                self._profile(), lambda changes: self._report.update(**changes), self._answers, self._activity.told
            )
        return self._link

    def _profile(self) -> Profile:
        order, settings, said = self.order, self._settings, self._report.document
        return Profile(
            order.name,
            said.factory_hostname,
            order.port,
            said.device,
            order.dashboard_url,
            order.heartbeat_url,
            settings.heartbeat_interval,
            settings.capabilities,
            settings.region,
            settings.location,
        )

    def _launched(self) -> HostedDatasite:
        if self._hosted is None:
            raise RuntimeError("the datasite is not launched: call launch_datasite() first")
        return self._hosted

    def _note_limits(self) -> None:
        before = self._report.document.limited
        if self._limiter.told() != before:
            self._report.renew(lambda: {"limited": self._limiter.told()})
        limited = self._report.document.limited
        if limited.keys() != before.keys():
            logger.warning("limits reached: %s", "; ".join(limited.values()) or "none")

    def _note_refusals(self) -> None:
        told = asdict(self._refusals.told(time.monotonic()))
        if any(getattr(self._report.document, key) != value for key, value in told.items()):
            self._report.update(**told)

    def report_failure(self, why: str) -> None:
        """Report why the datasite could not start or continue."""
        self._report.update(status="failed", phase=Phase.FAILED, failure=why)

    def _answers(self) -> bool:
        """Whether the datasite answers its own HTTP, now."""
        connection = http.client.HTTPConnection(
            listening.own_address(self.order.hostname), self.order.port, timeout=_SELF_CHECK
        )
        try:
            connection.request("GET", STATUS_PATH)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _offer_status(self) -> None:
        """The engine's own ``factory.status``, after the datasite is ready: nobody waits for its database."""
        try:
            self._launched().offer_status(self.status_endpoint)
        except Exception as error:
            known = troubles.known_failure(error, self.state_dir)
            why = f": {known}" if known else ""
            logger.warning("the PySyft endpoint factory.status could not be added%s", why, exc_info=known is None)
