"""``FactoryDatasite``: one production line's PySyft datasite, its whole lifecycle, usable alone from Python."""

from __future__ import annotations

import contextlib
import http.client
import logging
import queue
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path
from typing import Any

import syft as sy
import torch

from datasite_worker import strays
from datasite_worker.bounds import Connections
from datasite_worker.centre.link import CentralLink, Site
from datasite_worker.credentials import AdminLogin, admin_login, identity, show
from datasite_worker.data import datasets
from datasite_worker.jobs.queue import JobQueue
from datasite_worker.jobs.rules import threads_of
from datasite_worker.jobs.zygote import Zygote, may_fork
from datasite_worker.means import gpu, load
from datasite_worker.means import threads as computing
from datasite_worker.means.limits import Keeper, threads_within
from datasite_worker.pysyft import activity, approvals, doors, server
from datasite_worker.pysyft.jobs.process import Errand
from datasite_worker.refusals import Refusals
from fleet_common import listening, logs, process, pulse
from fleet_common.contract import (
    STATUS_PATH,
    Access,
    DatasetOrder,
    LaunchOrder,
    Limits,
    LiveSettings,
    Phase,
    StatusDocument,
    parse_settings,
)
from fleet_common.layout import WorkerFolder

logger = logging.getLogger(__name__)

DEFAULT_CAPABILITIES = {
    "max_concurrent_training": 3,
    "supported_models": ["torch"],
    "data_types": ["tabular", "timeseries"],
    "security_level": "standard",
}
_SELF_CHECK = 2.0
_ROUND = 5.0
_STATUS_KEYS = ("factory_name", "factory_hostname", "factory_port", "device", "status")


class _Word(Enum):
    """What ``run`` can be told. Through a SimpleQueue: a signal handler may put into one, but not set an Event."""

    STOP = "stop"
    SETTINGS = "settings"


def limit_threads(threads: int) -> None:
    """For all that computes in this process itself, and what it starts."""
    computing.use(threads)


class FactoryDatasite:
    """A datasite for one line. ``launch_datasite`` serves; ``run`` does all and waits for ``stop``."""

    def __init__(
        self,
        factory_name: str,
        port: int = 8080,
        hostname: str = "localhost",
        dashboard_url: str = "http://localhost:5000",
        dev_mode: bool = False,
        reset: bool = False,
        verbose: bool = False,
        *,
        advertise: str = "",
        heartbeat_url: str = "",
        heartbeat_interval: float = 30.0,
        state_dir: Path | None = None,
        log_dir: Path = Path("logs"),
        association_request_auto_approval: bool = True,
        admin_email: str = "admin@pdm-factory.com",
        admin_name: str = "Factory Admin",
        admin_password: str | None = None,
        capabilities: dict[str, Any] | None = None,
        region: str = "",
        location: str = "",
        generation: int = 0,
        pid: int = 0,
        pulse_address: str = "",
        limits: Limits = Limits(),  # noqa: B008 - a frozen value
        published: tuple[DatasetOrder, ...] = (),
        threads: int = 0,
        threads_fixed: bool = False,
        gpu_memory_bytes: int = 0,
        approved_code: tuple[str, ...] = (),
        access: Access = Access(),  # noqa: B008 - a frozen value
    ) -> None:
        self.factory_name = factory_name
        self.port = port
        self.hostname = hostname
        self.dashboard_url = dashboard_url
        self.dev_mode = dev_mode
        self.verbose = verbose
        self.state_dir = (state_dir or Path(".fleet") / "datasites" / factory_name).absolute()
        self.log_dir = log_dir.absolute()
        self._advertise = listening.reachable_name(advertise or hostname)
        self._heartbeat_url = heartbeat_url or dashboard_url
        self._heartbeat_interval = heartbeat_interval
        self._auto_approval = association_request_auto_approval
        self._admin = (admin_email, admin_name, admin_password)
        self._capabilities = capabilities or DEFAULT_CAPABILITIES
        self._region, self._location = region, location
        self._pulse_address = pulse_address
        self._reset = reset
        self._told: queue.SimpleQueue[_Word] = queue.SimpleQueue()
        self._status_lock = threading.Lock()
        self._server: Any = None
        self._serving: server.Serving | None = None
        self._limits = limits
        self._keeper = Keeper(self.state_dir, limits, self._note_limits)
        self._weight = load.Weight()
        self._approved_code = approved_code
        self._approvals: approvals.Approvals | None = None
        self._threads = threads or torch.get_num_threads()
        self._threads_fixed = threads_fixed
        self._gpu_memory_bytes = gpu_memory_bytes
        self._access = access
        self._refusals = Refusals()
        self._zygote: Zygote | None = None
        self._jobs: JobQueue | None = None
        self._link: CentralLink | None = None
        self._activity = activity.Activity(self._note_activity)
        self._strays = strays.Strays()
        self._datasets = datasets.Datasets(self.state_dir, published, lambda said: self._update(datasets=said))
        self._chores_due = 0.0
        self.setup_logging()
        self.device = self.detect_device()
        self._status = StatusDocument(
            factory_name, self._advertise, port, self.device, "starting", generation=generation, pid=pid
        )
        self._status = replace(self._status, datasets=self._datasets.known())

    @classmethod
    def from_order(cls, order: LaunchOrder, pid: int) -> FactoryDatasite:
        """The datasite that a supervisor asked for. There is no reset: a restart never loses data."""
        return cls(
            order.name,
            order.port,
            order.hostname,
            order.dashboard_url,
            order.dev_mode,
            verbose=order.verbose,
            advertise=order.advertise,
            heartbeat_url=order.heartbeat_url,
            heartbeat_interval=order.heartbeat_interval,
            state_dir=Path(order.state_dir),
            log_dir=Path(order.log_dir),
            association_request_auto_approval=order.association_request_auto_approval,
            admin_email=order.admin_email,
            admin_name=order.admin_name,
            admin_password=order.admin_password,
            capabilities=order.capabilities,
            region=order.region,
            location=order.location,
            generation=order.generation,
            pid=pid,
            pulse_address=order.pulse_address,
            limits=order.limits,
            published=order.datasets,
            threads=order.threads,
            threads_fixed=order.threads_fixed,
            gpu_memory_bytes=order.gpu_memory_bytes,
            approved_code=order.approved_code,
            access=order.access,
        )

    # --- steps of the lifecycle ---

    def detect_device(self) -> str:
        """``cuda:0`` when this process sees a GPU, else ``cpu``."""
        device = gpu.device()
        logger.info("device: %s", device)
        return device

    def setup_logging(self) -> None:
        """Write to ``<log_dir>/<factory_name>.log``, and to the console when verbose."""
        logs.log_to(self.log_dir / f"{self.factory_name}.log", console=self.verbose)

    def launch_datasite(self) -> Any:
        """Serve PySyft in this process; PySyft's ``ServerHandle`` for it.

        Raises PortTaken and ConfigurationFailure, before anything is touched.
        """
        self._make_zygote()
        listener = listening.bind(self.hostname, self.port)
        try:
            process.claim(self.state_dir)
            self._remove_state()
            self._make_server()
        except BaseException:
            listener.close()
            raise
        connections = Connections()
        app = server.make_app(
            self._server,
            self._loaded_status,
            probe_key=process.probe_key(self.state_dir),
            refusals=self._refusals,
            connections=connections,
        )
        self._keeper.keep(self._server, app)
        self._serving = server.Serving(app, listener, connections)
        self._update(status="running", phase=Phase.SERVING)
        logger.info("launched on port %d", self.port)
        return self._handle()

    def _make_server(self) -> None:
        logger.info("launching PySyft %s", sy.__version__)
        activity.watch(self._activity)
        doors.close()
        load.begin()
        self._server = server.make_server(
            self.factory_name,
            identity(self.state_dir),
            self.state_dir,
            dev_mode=self.dev_mode,
            auto_approval=self._auto_approval,
            sessions=self._limits.sessions,
            access=self._access,
        )
        self._update(interrupted_jobs=self._server.interrupted)
        self._jobs = JobQueue(
            self._server, self._zygote, self._errand, self._activity, self._note_cut_off, self._limits.sessions
        )
        self._keeper.sessions.jobs = self._jobs
        self._jobs.start()
        self.create_admin_user(*self._admin)
        self._approvals = approvals.Approvals(self._server, self._approved_code)

    def _make_zygote(self) -> None:
        """Before there is a thread, or a socket, or a database. Where there are threads already, as in a notebook, the
        first job waits for a fresh one."""
        if self._zygote is None and may_fork():
            self._zygote = Zygote.forked()

    def _errand(self, running: int) -> Errand:
        threads = threads_of(self._threads, running, fixed=self._threads_fixed)
        if not self._threads_fixed:
            threads = threads_within(threads, self._limits.cpu_percent)
        return Errand(
            self.factory_name,
            str(self.state_dir),
            threads=threads,
            gpu_memory_bytes=self._gpu_memory_bytes,
            dev_mode=self.dev_mode,
            log=str(self.log_dir / f"{self.factory_name}.log"),
        )

    def _note_cut_off(self, job: str, why: str) -> None:
        self._renew(lambda: {"jobs_cut_off": self._status.jobs_cut_off + 1, "last_job_cut_off": f"{job}: {why}"})

    def _handle(self) -> Any:
        host = listening.own_address(self.hostname)
        url = f"http://[{host}]" if ":" in host else f"http://{host}"
        handle = sy.orchestra.launch(name=self.factory_name, deploy_to="remote", host=url, port=self.port)
        handle.shutdown = self.shutdown
        return handle

    def _remove_state(self) -> None:
        """Once, when a reset was asked for, and only after this process has port and folder to itself."""
        if not self._reset:
            return
        self._reset = False
        for doomed in self._doomed():
            logger.warning("reset: removing %s", doomed)
            shutil.rmtree(doomed) if doomed.is_dir() and not doomed.is_symlink() else doomed.unlink()

    def _doomed(self) -> list[Path]:
        """All state; but not the folder that this process may stand in, nor the leash that it holds."""
        folder = WorkerFolder(self.state_dir)
        work = folder.work
        inside = sorted(work.iterdir()) if work.is_dir() else []
        return [path for path in sorted(self.state_dir.iterdir()) if path not in (work, folder.leash)] + inside

    def create_admin_user(self, admin_email: str, admin_name: str, admin_password: str | None) -> AdminLogin:
        """Make sure of a user with role ADMIN. One that exists keeps the password it has; None draws a strong one.

        The datasite's own admin is the one that ``admin.json`` shows.
        """
        login = admin_login(self.state_dir, admin_email, admin_name, admin_password)
        if admin_email == self._admin[0]:
            show(self.state_dir, login)
        if server.create_admin(self._server, login):
            logger.info("admin created: %s", login.email)
        return login

    def register_with_dashboard(self) -> bool:
        """Register once; True when the dashboard took it. Bounded by the link's time-outs; never raises."""
        return self._central().register()

    def send_heartbeat(self) -> bool:
        """Beat once; True when the dashboard took it. Bounded by the link's time-outs; never raises."""
        return self._central().beat()

    def status_endpoint(self) -> dict[str, Any]:
        """What ``factory.status`` answers: factory_name, factory_hostname, factory_port, device, status, and what
        trains: active_experiments, last_training_completion; and how busy the host is: current_load."""
        said = self._status
        loads = {"current_load": load.current_load(self._latency())}
        return {key: getattr(said, key) for key in _STATUS_KEYS} | self._activity.told() | loads

    def _loaded_status(self) -> load.LoadedStatus:
        return load.loaded(self._status, self._latency(), self._weight.memory_mb)

    def _latency(self) -> float:
        return self._link.latency_ms if self._link is not None else 0.0

    def run(self) -> None:
        """Launch, register, beat, and serve until ``stop``. Raises RuntimeError when the HTTP thread dies."""
        self.launch_datasite()
        self._take_settings()
        if self.dashboard_url:
            self._central().start()
        threading.Thread(target=self._offer_status, name="endpoint", daemon=True).start()
        self._datasets.look(self._server)
        while (word := self._wait_for_word()) is not _Word.STOP:
            if word is _Word.SETTINGS:
                self._take_settings()
            self._look_around()
        self._wind_down()

    def stop(self) -> None:
        """Ask ``run`` to end; may be called from a signal handler."""
        self._told.put(_Word.STOP)

    def reload(self) -> None:
        """Ask ``run`` to read the live settings; may be called from a signal handler."""
        self._told.put(_Word.SETTINGS)

    def shutdown(self) -> None:
        """Say good-bye, serve no more, and end PySyft's threads, so that the interpreter can end. For whoever called
        ``launch_datasite`` from Python; a worker process ends without it."""
        self._wind_down()
        if self._server is not None:
            self._server.close()

    def _wind_down(self) -> None:
        logger.info("stopping")
        self._update(status="stopping", phase=Phase.STOPPING)
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
            return self._told.get(timeout=_ROUND)
        return None

    def _look_around(self) -> None:
        if self._serving is not None and not self._serving.alive:
            raise RuntimeError("the HTTP server ended by itself")
        self._datasets.look(self._server)
        self._weight.look()
        self._keeper.look()
        self._note_limits()
        self._note_refusals()
        if time.monotonic() >= self._chores_due:
            self._chores_due = time.monotonic() + strays.ROUND
            self._strays.reap()
            logs.trim_output()

    def _take_settings(self) -> None:
        """Take on the live settings that were left for this very generation; a broken file changes nothing."""
        path = WorkerFolder(self.state_dir).settings
        try:
            settings = parse_settings(path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            logger.warning("%s cannot be used: %s", path, error)
            return
        if settings.generation == self._status.generation:
            self._apply(settings)

    def _apply(self, settings: LiveSettings) -> None:
        self._heartbeat_interval = settings.heartbeat_interval
        self._capabilities = settings.capabilities
        self._region, self._location = settings.region, settings.location
        self._limits = settings.limits
        self._keeper.use(settings.limits)
        self._datasets.want(settings.datasets)
        if self._jobs is not None:
            self._jobs.allow(settings.limits.sessions)
        if self._approvals is not None:
            self._approvals.allow(settings.approved_code)
        logger.info(
            "settings: heartbeat every %g s, capabilities %s", settings.heartbeat_interval, settings.capabilities
        )
        self._central().apply(settings.heartbeat_interval, settings.capabilities, settings.region, settings.location)

    def _central(self) -> CentralLink:
        if self._link is None:
            site = Site(
                self.factory_name,
                self._advertise,
                self.port,
                self.device,
                self.dashboard_url,
                self._heartbeat_url,
                self._heartbeat_interval,
                self._capabilities,
                self._region,
                self._location,
            )
            self._link = CentralLink(site, lambda changes: self._update(**changes), self._answers, self._activity.told)
        return self._link

    def _update(self, **changes: Any) -> None:
        self._renew(lambda: changes)

    def _note_activity(self) -> None:
        self._renew(self._activity.told)

    def _note_limits(self) -> None:
        before = self._status.limited
        if self._keeper.told() != before:
            self._renew(lambda: {"limited": self._keeper.told()})
        if self._status.limited.keys() != before.keys():
            logger.warning("limits that are reached: %s", "; ".join(self._status.limited.values()) or "none any more")

    def _note_refusals(self) -> None:
        told = asdict(self._refusals.told(time.monotonic()))
        if any(getattr(self._status, key) != value for key, value in told.items()):
            self._update(**told)

    def _renew(self, changes: Callable[[], dict[str, Any]]) -> None:
        """Asked and told under one lock: of two threads the later has the last word, here and at the supervisor."""
        with self._status_lock:
            self._status = replace(self._status, **changes())
            pulse.send(self._pulse_address, self._status)

    def report_failure(self, why: str) -> None:
        """The last word of a datasite that could not start or go on."""
        self._update(status="failed", phase=Phase.FAILED, failure=why)

    def _answers(self) -> bool:
        """Whether the datasite answers its own HTTP, now."""
        connection = http.client.HTTPConnection(listening.own_address(self.hostname), self.port, timeout=_SELF_CHECK)
        try:
            connection.request("GET", STATUS_PATH)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _offer_status(self) -> None:
        """PySyft's own ``factory.status``, after the datasite is ready: nobody waits for its database."""
        try:
            server.offer_status(self._server, self.status_endpoint)
        except Exception:
            logger.warning("the PySyft endpoint factory.status could not be added", exc_info=True)
