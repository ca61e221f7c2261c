"""From what the operator asked for to what a worker is told: ``LaunchOrder`` and ``DashboardOrder``. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path

from datasite_worker.contract import DashboardOrder, LaunchOrder
from supervisor.spec import DASHBOARD_NAME, DatasiteSpec, FleetConfig, WorkerSpec

AnyLaunchOrder = LaunchOrder | DashboardOrder


def datasite_dir(config: FleetConfig, name: str) -> Path:
    """Where a datasite keeps its identity, database and secrets."""
    return config.state_dir / "datasites" / name


def worker_log(config: FleetConfig, name: str) -> Path:
    return config.log_dir / f"{name}.log"


def pulse_socket(config: FleetConfig) -> Path:
    return config.state_dir / "pulse.sock"


def control_socket(config: FleetConfig) -> Path:
    return config.state_dir / "control.sock"


def threads_per_line(spec: DatasiteSpec, lines: int, cores: int) -> int:
    """OMP, MKL and torch threads of one line: its own setting, else its share of the cores.

    Unset, every line would take all cores; two lines training at once were measured 25 times slower so.
    """
    return spec.resources.threads or max(1, cores // max(1, lines))


def launch_order(config: FleetConfig, spec: WorkerSpec, generation: int, cores: int) -> AnyLaunchOrder:
    if isinstance(spec, DatasiteSpec):
        return _datasite_order(config, spec, generation, cores)
    folder = config.state_dir / DASHBOARD_NAME
    return DashboardOrder(
        name=spec.name,
        generation=generation,
        hostname=spec.hostname,
        port=spec.port,
        database=str(folder / "dashboard.db"),
        log_dir=str(config.log_dir),
        state_dir=str(folder),
        pulse_address=str(pulse_socket(config)),
    )


def _datasite_order(config: FleetConfig, spec: DatasiteSpec, generation: int, cores: int) -> LaunchOrder:
    return LaunchOrder(
        name=spec.name,
        generation=generation,
        hostname=spec.hostname,
        port=spec.port,
        advertise=spec.advertise or spec.hostname,
        dashboard_url=spec.dashboard_url,
        heartbeat_url=spec.heartbeat_url or spec.dashboard_url,
        heartbeat_interval=spec.heartbeat_interval,
        state_dir=str(datasite_dir(config, spec.name)),
        log_dir=str(config.log_dir),
        pulse_address=str(pulse_socket(config)),
        dev_mode=spec.dev_mode,
        verbose=spec.verbose,
        association_request_auto_approval=spec.association_request_auto_approval,
        admin_email=spec.admin.email,
        admin_name=spec.admin.name,
        admin_password=spec.admin.password,
        capabilities={key: list(v) if isinstance(v, tuple) else v for key, v in asdict(spec.capabilities).items()},
        threads=threads_per_line(spec, len(config.datasites), cores),
        environment=dict(spec.environment),
        cuda_visible_devices="" if spec.gpu.mode == "none" else None,
    )


def fingerprint(order: AnyLaunchOrder) -> str:
    """Tells whether a running process still is what the configuration asks for. No secret can be read from it."""
    plain = replace(order, generation=0)
    if isinstance(plain, LaunchOrder):
        plain = replace(plain, admin_password=None)
    return hashlib.sha256(repr(sorted(asdict(plain).items())).encode()).hexdigest()
