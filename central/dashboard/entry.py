"""The embedded dashboard's process: becomes a worker, binds its port, serves, and tells the supervisor how it is.

Standard library only at import time: the supervisor imports this module to name ``run`` as a process's target.
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

Tell = Callable[[StatusDocument], None]


def run(order: DashboardOrder) -> None:
    """Serve the dashboard until SIGTERM or SIGINT. Always ends in SystemExit, with an ``ExitCode``."""
    from fleet_common.logs import set_level
    from fleet_common.process import become, join_cgroup
    from fleet_common.pulse import send

    join_cgroup(order.cgroup)
    try:
        become(TITLE, Path(order.state_dir), Path(order.log_dir) / f"{order.name}.log")
    except folders.Unsafe as error:
        logger.error("the dashboard cannot begin: %s", error)
        send(order.pulse_address, status_of(order, Phase.FAILED, failure=f"cannot begin: {error}"))
        raise SystemExit(ExitCode.CONFIGURATION) from None
    for name in ("", "uvicorn", "uvicorn.access"):  # CRITICAL in the forkserver, as PySyft wants them
        set_level(logging.getLogger(name), logging.WARNING)
    raise SystemExit(_guarded(order, lambda status: send(order.pulse_address, status)))


def _guarded(order: DashboardOrder, tell: Tell) -> ExitCode:
    """Serve, and turn every fault into an exit code, a line in the log and a last pulse."""
    from central.dashboard.store import StoreUnusable
    from fleet_common.failures import ConfigurationFailure

    try:
        _serve(order, tell)
    except (ConfigurationFailure, StoreUnusable) as error:
        logger.error("%s", error)
        tell(status_of(order, Phase.FAILED, failure=str(error)))
        return ExitCode.CONFIGURATION
    except Exception as error:
        logger.exception("the dashboard failed")
        tell(status_of(order, Phase.FAILED, failure=f"{type(error).__name__}: {error}"))
        return ExitCode.FAILURE
    return ExitCode.CLEAN


def _serve(order: DashboardOrder, tell: Tell) -> None:
    from central.dashboard import app, server
    from central.dashboard.liveness import Thresholds
    from fleet_common.listening import bind
    from fleet_common.process import probe_key

    listener = bind(order.hostname, order.port)
    thresholds = Thresholds(order.late_after, order.offline_after)
    dashboard = app.create_app(Path(order.database), thresholds=thresholds)

    def say(phase: Phase) -> None:
        logger.info("%s on http://%s:%d, database %s", phase.value, order.hostname, order.port, order.database)
        tell(status_of(order, phase))

    server.serve(
        dashboard,
        listener,
        status=lambda: status_of(order, Phase.SERVING),
        probe_key=probe_key(Path(order.state_dir)),
        on_serving=lambda: say(Phase.SERVING),
        on_stopping=lambda: say(Phase.STOPPING),
    )


_WORDS = {Phase.LAUNCHING: "starting", Phase.SERVING: "running", Phase.STOPPING: "stopping", Phase.FAILED: "failed"}


def status_of(order: DashboardOrder, phase: Phase, failure: str = "") -> StatusDocument:
    """The dashboard in the same words as a datasite, so that the supervisor probes both alike."""
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
