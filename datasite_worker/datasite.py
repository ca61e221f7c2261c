"""``FactoryDatasite``: one PySyft datasite, usable alone from Python. A facade: it writes the order that a supervisor
would send, for the ``Lifecycle``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, Unpack

from datasite_worker.lifecycle import Lifecycle
from datasite_worker.means import threads
from datasite_worker.pysyft.engine import PySyft
from fleet_common.contract import (
    Access,
    AdminOrder,
    AnyBounds,
    Approval,
    ComputeOrder,
    DatasetOrder,
    LaunchOrder,
    Limits,
    LiveSettings,
)

DEFAULT_CAPABILITIES = {
    "max_concurrent_training": 3,
    "supported_models": ["torch"],
    "data_types": ["tabular", "timeseries"],
    "security_level": "standard",
}


class Options(TypedDict, total=False):
    """Options of a datasite besides the seven of the specification. Each has a default."""

    advertise: str
    heartbeat_url: str
    heartbeat_interval: float
    state_dir: Path
    log_dir: Path
    association_request_auto_approval: bool
    admin_email: str
    admin_name: str
    admin_password: str | None
    capabilities: dict[str, Any]
    region: str
    location: str
    limits: Limits
    published: tuple[DatasetOrder, ...]
    approved_code: tuple[Approval, ...]
    training_bounds: AnyBounds
    access: Access
    threads: int
    threads_fixed: bool
    gpu_memory_bytes: int
    pid: int


class FactoryDatasite(Lifecycle):
    """A datasite for one production line. ``launch_datasite`` serves; ``run`` does all of it, until ``stop``."""

    def __init__(
        self,
        factory_name: str,
        port: int = 8080,
        hostname: str = "localhost",
        dashboard_url: str = "http://localhost:5000",
        dev_mode: bool = False,
        reset: bool = False,
        verbose: bool = False,
        **options: Unpack[Options],
    ) -> None:
        if unknown := options.keys() - Options.__annotations__.keys():
            raise TypeError(f"FactoryDatasite has no option {', '.join(sorted(unknown))}")
        order = LaunchOrder(
            name=factory_name,
            hostname=hostname,
            port=port,
            advertise=options.get("advertise") or hostname,
            dashboard_url=dashboard_url,
            heartbeat_url=options.get("heartbeat_url") or dashboard_url,
            state_dir=str(_state_dir(factory_name, options).absolute()),
            log_dir=str(options.get("log_dir", Path("logs")).absolute()),
            settings=_settings(options),
            dev_mode=dev_mode,
            verbose=verbose,
            reset=reset,
            association_request_auto_approval=options.get("association_request_auto_approval", True),
            admin=_admin(options),
            access=options.get("access", Access()),
            compute=_compute(options),
        )
        super().__init__(order, PySyft(), options.get("pid", 0))
        self.port, self.hostname, self.dashboard_url = port, hostname, dashboard_url
        self.dev_mode, self.verbose = dev_mode, verbose


def launched(order: LaunchOrder, pid: int) -> Lifecycle:
    """The datasite that a supervisor asked for."""
    return Lifecycle(order, PySyft(), pid)


def _state_dir(name: str, options: Options) -> Path:
    return options.get("state_dir") or Path(".fleet") / "datasites" / name


def _settings(options: Options) -> LiveSettings:
    return LiveSettings(
        generation=0,
        heartbeat_interval=options.get("heartbeat_interval", 30.0),
        capabilities=options.get("capabilities") or DEFAULT_CAPABILITIES,
        region=options.get("region", ""),
        location=options.get("location", ""),
        approved_code=options.get("approved_code", ()),
        limits=options.get("limits", Limits()),
        datasets=options.get("published", ()),
        training_bounds=options.get("training_bounds", {}),
    )


def _admin(options: Options) -> AdminOrder:
    return AdminOrder(
        options.get("admin_email", "admin@pdm-factory.com"),
        options.get("admin_name", "Factory Admin"),
        options.get("admin_password"),
    )


def _compute(options: Options) -> ComputeOrder:
    return ComputeOrder(
        threads=options.get("threads", 0) or threads.in_use(),
        threads_fixed=options.get("threads_fixed", False),
        gpu_memory_bytes=options.get("gpu_memory_bytes", 0),
    )
