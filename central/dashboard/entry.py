"""The embedded dashboard's process: becomes a worker, binds its port, serves, and sends pulses to the supervisor.

Imports only the standard library at the top: the supervisor imports this module, as it starts ``run`` in a process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from fleet_common import folders
from fleet_common.contract import DashboardOrder, ExitCode, Phase, StatusDocument

logger = logging.getLogger(__name__)

TITLE = "fleet: dashboard"

SendPulse = Callable[[StatusDocument], None]


def run(order: DashboardOrder) -> None:
    """Serve the dashboard until SIGTERM or SIGINT. Always ends in SystemExit, with an ``ExitCode``."""
    from fleet_common.logs import set_level
    from fleet_common.process import become, join_cgroup
    from fleet_common.pulse import send

    join_cgroup(order.cgroup)
    try:
        become(TITLE, Path(order.state_dir), Path(order.log_dir) / f"{order.name}.log")
    except folders.Unsafe as error:
        logger.error("the dashboard cannot start: %s", error)
        send(order.pulse_address, status_of(order, Phase.FAILED, failure=f"cannot start: {error}"))
        raise SystemExit(ExitCode.CONFIGURATION) from None
    for name in ("", "uvicorn", "uvicorn.access"):  # PySyft sets them to CRITICAL in the forkserver
        set_level(logging.getLogger(name), logging.WARNING)
    raise SystemExit(_guarded(order, lambda status: send(order.pulse_address, status)))


def _guarded(order: DashboardOrder, send_pulse: SendPulse) -> ExitCode:
    """Serve, and turn every fault into an exit code, a log entry and a last pulse."""
    from central.dashboard.store import StoreUnusable
    from fleet_common.failures import ConfigurationFailure

    try:
        _serve(order, send_pulse)
    except (ConfigurationFailure, StoreUnusable) as error:
        logger.error("%s", error)
        send_pulse(status_of(order, Phase.FAILED, failure=str(error)))
        return ExitCode.CONFIGURATION
    except Exception as error:
        logger.exception("the dashboard failed")
        send_pulse(status_of(order, Phase.FAILED, failure=f"{type(error).__name__}: {error}"))
        return ExitCode.FAILURE
    return ExitCode.CLEAN


def _serve(order: DashboardOrder, send_pulse: SendPulse) -> None:
    from central.dashboard import app, server
    from central.dashboard.liveness import Thresholds
    from fleet_common.listening import bind
    from fleet_common.process import probe_key

    listener = bind(order.hostname, order.port)
    thresholds = Thresholds(order.late_after, order.offline_after)
    dashboard = app.create_app(Path(order.database), thresholds=thresholds)

    def report(phase: Phase) -> None:
        logger.info("%s on http://%s:%d, database %s", phase.value, order.hostname, order.port, order.database)
        send_pulse(status_of(order, phase))

    server.serve(
        dashboard,
        listener,
        status=lambda: status_of(order, Phase.SERVING),
        probe_key=probe_key(Path(order.state_dir)),
        on_serving=lambda: report(Phase.SERVING),
        on_stopping=lambda: report(Phase.STOPPING),
    )


_WORDS = {Phase.LAUNCHING: "starting", Phase.SERVING: "running", Phase.STOPPING: "stopping", Phase.FAILED: "failed"}


def status_of(order: DashboardOrder, phase: Phase, failure: str = "") -> StatusDocument:
    """The dashboard's status in the form of a datasite's, so that the supervisor probes both in the same way."""
    return StatusDocument(
        factory_name=order.name,
        factory_hostname=order.hostname,
        factory_port=order.port,
        device="",
        status=_WORDS[phase],
        generation=order.generation,
        pid=os.getpid(),
        phase=phase.value,
        failure=failure,
    )
