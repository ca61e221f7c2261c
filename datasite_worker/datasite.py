"""``FactoryDatasite``: one production line's PySyft datasite, its whole lifecycle, usable alone from Python."""

from __future__ import annotations

import logging
import shutil
import threading
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import syft as sy
import torch

from datasite_worker import process, pulse, server
from datasite_worker.central_link import CentralLink, Site
from datasite_worker.contract import STATUS_PATH, LaunchOrder, Phase, StatusDocument
from datasite_worker.credentials import AdminLogin, admin_login, identity

logger = logging.getLogger(__name__)

DEFAULT_CAPABILITIES = {
    "max_concurrent_training": 3,
    "supported_models": ["torch"],
    "data_types": ["tabular", "timeseries"],
    "security_level": "standard",
}
_SELF_CHECK = 2.0


def limit_threads(threads: int) -> None:
    """torch came preloaded, and read OMP_NUM_THREADS long before this process was born: it is told directly."""
    torch.set_num_threads(threads)


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
        generation: int = 0,
        pid: int = 0,
        pulse_address: str = "",
    ) -> None:
        self.factory_name = factory_name
        self.port = port
        self.hostname = hostname
        self.dashboard_url = dashboard_url
        self.dev_mode = dev_mode
        self.verbose = verbose
        self.state_dir = (state_dir or Path(".fleet") / "datasites" / factory_name).absolute()
        self.log_dir = log_dir.absolute()
        self._advertise = advertise or hostname
        self._heartbeat_url = heartbeat_url or dashboard_url
        self._heartbeat_interval = heartbeat_interval
        self._auto_approval = association_request_auto_approval
        self._admin = (admin_email, admin_name, admin_password)
        self._capabilities = capabilities or DEFAULT_CAPABILITIES
        self._pulse_address = pulse_address
        self._stop = threading.Event()
        self._status_lock = threading.Lock()
        self._server: Any = None
        self._serving: server.Serving | None = None
        self._link: CentralLink | None = None
        if reset:
            shutil.rmtree(self.state_dir, ignore_errors=True)
        self.device = self.detect_device()
        self._status = StatusDocument(
            factory_name, self._advertise, port, self.device, "starting", generation=generation, pid=pid
        )

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
            generation=order.generation,
            pid=pid,
            pulse_address=order.pulse_address,
        )

    # --- steps of the lifecycle ---

    def detect_device(self) -> str:
        """``cuda:0`` when this process sees a GPU, else ``cpu``."""
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        logger.info("device: %s", device)
        return device

    def setup_logging(self) -> None:
        """Write to ``<log_dir>/<factory_name>.log``, and to the console when verbose."""
        process.log_to(self.log_dir / f"{self.factory_name}.log", console=self.verbose)

    def launch_datasite(self) -> Any:
        """Serve PySyft in this process; PySyft's ``ServerHandle`` for it.

        Raises PortTaken and ConfigurationFailure, before anything is touched.
        """
        listening = process.bind(self.hostname, self.port)
        logger.info("launching PySyft %s", sy.__version__)
        self._server = server.make_server(
            self.factory_name,
            identity(self.state_dir),
            self.state_dir,
            dev_mode=self.dev_mode,
            auto_approval=self._auto_approval,
        )
        self.create_admin_user(*self._admin)
        self._serving = server.Serving(server.make_app(self._server, lambda: self._status), listening)
        self._update(status="running", phase=Phase.SERVING)
        logger.info("launched on port %d", self.port)
        host = "127.0.0.1" if self.hostname in ("localhost", "0.0.0.0", "::") else self.hostname  # noqa: S104 - compared
        handle = sy.orchestra.launch(name=self.factory_name, deploy_to="remote", host=f"http://{host}", port=self.port)
        handle.shutdown = self.stop
        return handle

    def create_admin_user(self, admin_email: str, admin_name: str, admin_password: str | None) -> AdminLogin:
        """Make sure of a user with role ADMIN. One that exists keeps the password it has; None draws a strong one."""
        login = admin_login(self.state_dir, admin_email, admin_name, admin_password)
        if server.create_admin(self._server, login):
            logger.info("admin created: %s", login.email)
        return login

    def register_with_dashboard(self) -> bool:
        """Register once; True when the dashboard took it. Bounded by the link's time-outs; never raises."""
        return self._central().register()

    def send_heartbeat(self) -> None:
        """Beat once. Never raises."""
        self._central().beat()

    def status_endpoint(self) -> dict[str, Any]:
        """What ``factory.status`` answers: factory_name, factory_hostname, factory_port, device, status."""
        said = self._status
        keys = ("factory_name", "factory_hostname", "factory_port", "device", "status")
        return {key: getattr(said, key) for key in keys}

    def run(self) -> None:
        """Launch, register, beat, and serve until ``stop``. Raises RuntimeError when the HTTP thread dies."""
        self.launch_datasite()
        self._central().start()
        threading.Thread(target=self._add_endpoint, name="endpoint", daemon=True).start()
        while not self._stop.wait(5.0):
            if self._serving is not None and not self._serving.alive:
                raise RuntimeError("the HTTP server ended by itself")
        self._wind_down()

    def stop(self) -> None:
        """Ask ``run`` to end; may be called from a signal handler."""
        self._stop.set()

    # --- inside ---

    def _wind_down(self) -> None:
        logger.info("stopping")
        self._update(status="stopping", phase=Phase.STOPPING)
        if self._link is not None:
            self._link.stop()
        if self._serving is not None:
            self._serving.stop()
        logger.info("stopped")

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
            )
            self._link = CentralLink(site, lambda changes: self._update(**changes), self._answers)
        return self._link

    def _update(self, **changes: Any) -> None:
        with self._status_lock:
            self._status = replace(self._status, **changes)
        pulse.send(self._pulse_address, self._status)

    def report_failure(self, why: str) -> None:
        """The last word of a datasite that could not start or go on."""
        self._update(status="failed", phase=Phase.FAILED, failure=why)

    def _answers(self) -> bool:
        """Whether the datasite answers its own HTTP, now."""
        host = "127.0.0.1" if self.hostname in ("localhost", "0.0.0.0", "::") else self.hostname  # noqa: S104 - compared
        try:
            with urllib.request.urlopen(f"http://{host}:{self.port}{STATUS_PATH}", timeout=_SELF_CHECK) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _add_endpoint(self) -> None:
        """PySyft's own ``factory.status``, kept in its database: added once, after the datasite is ready."""
        try:
            server.add_status_endpoint(self._server, self.status_endpoint())
        except Exception:
            logger.warning("the PySyft endpoint factory.status could not be added", exc_info=True)
