"""Makes the orders for a worker from its spec: ``LaunchOrder`` and ``DashboardOrder``. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fleet_common.contract import (
    Access,
    AdminOrder,
    AnyBounds,
    ComputeOrder,
    DashboardOrder,
    DatasetOrder,
    LaunchOrder,
    Limits,
    LiveSettings,
)
from supervisor.spec import (
    Capabilities,
    Dataset,
    DatasiteSpec,
    FleetConfig,
    HostLimits,
    Resources,
    WorkerSpec,
)

AnyLaunchOrder = LaunchOrder | DashboardOrder


def worker_log(config: FleetConfig, name: str) -> Path:
    return config.log_dir / f"{name}.log"


def threads_per_line(config: FleetConfig, spec: DatasiteSpec, cores: int) -> int:
    """OMP, MKL and torch threads of one datasite: its own setting, or else its share of the cores, within its CPU
    limit.

    Without this, every datasite takes all cores: two that trained at once were 25 times slower. Two threads on one core
    were 20 times slower than one.
    """
    share = _within(config.host.max_cpu_usage_percent, cores) // max(1, len(config.datasites))
    return spec.resources.threads or max(1, min(share, _within(spec.resources.max_cpu_usage_percent, cores)))


def _within(cpu_percent: float, cores: int) -> int:
    return min(cores, math.ceil(cpu_percent / 100)) if cpu_percent else cores


def launch_order(
    config: FleetConfig, spec: WorkerSpec, generation: int, cores: int, gpus: tuple[str, ...] | None = None
) -> AnyLaunchOrder:
    """``gpus``: the UUIDs that the worker sees; None: there are none to assign, and a datasite with ``auto`` sees
    all."""
    if isinstance(spec, DatasiteSpec):
        return _datasite_order(config, spec, generation, cores, gpus)
    folder = config.state.worker(spec.name)
    return DashboardOrder(
        name=spec.name,
        generation=generation,
        hostname=spec.hostname,
        port=spec.port,
        database=str(folder.database),
        late_after=spec.late_after,
        offline_after=spec.offline_after,
        log_dir=str(config.log_dir),
        state_dir=str(folder.root),
        pulse_address=str(config.state.pulse_socket),
    )


def _datasite_order(
    config: FleetConfig, spec: DatasiteSpec, generation: int, cores: int, gpus: tuple[str, ...] | None
) -> LaunchOrder:
    return LaunchOrder(
        name=spec.name,
        hostname=spec.hostname,
        port=spec.port,
        advertise=spec.advertise or spec.hostname,
        dashboard_url=spec.dashboard_url,
        heartbeat_url=spec.heartbeat_url or spec.dashboard_url,
        state_dir=str(config.state.worker(spec.name).root),
        log_dir=str(config.log_dir),
        pulse_address=str(config.state.pulse_socket),
        dev_mode=spec.dev_mode,
        verbose=spec.verbose,
        association_request_auto_approval=spec.association_request_auto_approval,
        admin=AdminOrder(spec.admin.email, spec.admin.name, spec.admin.password),
        access=Access(spec.access.allow_guests, spec.access.allow_registration, round(spec.access.max_upload_gb * _GB)),
        compute=_compute(spec, threads_per_line(config, spec, cores), gpus),
        environment=dict(spec.environment),
        settings=live_settings(config, spec, generation),
    )


def _compute(spec: DatasiteSpec, threads: int, gpus: tuple[str, ...] | None) -> ComputeOrder:
    return ComputeOrder(
        threads=threads,
        threads_fixed=spec.resources.threads > 0,
        cuda_visible_devices=None if gpus is None and spec.gpu.mode == "auto" else ",".join(gpus or ()),
        gpu_memory_bytes=spec.gpu.memory_bytes if gpus else 0,
    )


def live_settings(config: FleetConfig, spec: DatasiteSpec, generation: int) -> LiveSettings:
    """The settings that the running worker of ``generation`` applies without a restart."""
    return LiveSettings(
        generation,
        spec.heartbeat_interval,
        _told(spec.capabilities),
        spec.region,
        spec.location,
        spec.approved_code,
        limits_of(config, spec),
        tuple(map(_dataset, spec.datasets)),
        _bounds(spec),
    )


def _bounds(spec: DatasiteSpec) -> AnyBounds:
    own = {one.name: one.training_bounds for one in spec.datasets if one.training_bounds is not None}
    return {"": spec.training_bounds, **own}


def _dataset(spec: Dataset) -> DatasetOrder:
    mock = spec.mock
    own = str(mock.path) if mock.path else ""
    return DatasetOrder(spec.name, str(spec.path), spec.description, mock.rule, mock.rows, own)


_GB = 10**9
_MBIT = 10**6 // 8


def limits_of(config: FleetConfig, spec: DatasiteSpec) -> Limits:
    """The datasite's own limits, and its part of the host's: the larger disk threshold, and at most its even share of
    sessions and bandwidth, so that all together never use more. The host's memory and CPU are not split."""
    own, host, lines = _limits(spec.resources), host_limits(config), len(config.datasites)
    return replace(
        own,
        sessions=min(own.sessions, max(1, host.sessions // lines)) if host.sessions else own.sessions,
        disk_free=max(own.disk_free, host.disk_free),
        bandwidth=min(filter(None, (own.bandwidth, host.bandwidth // lines)), default=0),
    )


def host_limits(config: FleetConfig) -> Limits:
    """What all datasites together may use; 0 sessions are no limit here."""
    return _limits(config.host)


def retold(old: FleetConfig, new: FleetConfig) -> set[str]:
    """The datasites whose limits differ, also because of the host's, or because more datasites share them."""
    before = {spec.name: limits_of(old, spec) for spec in old.datasites}
    return {spec.name for spec in new.datasites if before.get(spec.name, limits_of(new, spec)) != limits_of(new, spec)}


def _limits(resources: Resources | HostLimits) -> Limits:
    return Limits(
        sessions=resources.max_concurrent_training_sessions,
        memory=round(resources.max_memory_usage_gb * _GB),
        cpu_percent=resources.max_cpu_usage_percent,
        disk_free=round(resources.disk_space_threshold_gb * _GB),
        bandwidth=round(resources.network_bandwidth_limit_mbps * _MBIT),
    )


def _told(capabilities: Capabilities) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(capabilities).items()}
