"""The first code of a worker process. Only the standard library is used until the process is set up: the environment,
above all GPUs and threads, must be set before torch is used."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from datasite_worker import troubles
from fleet_common import failures, folders
from fleet_common.contract import ExitCode, LaunchOrder, Phase, StatusDocument
from fleet_common.failures import ConfigurationFailure, KnownFailure, NoSpace
from fleet_common.layout import WorkerFolder

logger = logging.getLogger(__name__)


def run(order: LaunchOrder) -> None:
    """Run one datasite until SIGTERM or SIGINT. Never returns: the process ends with an ``ExitCode``."""
    try:
        _become(order)
        datasite = _made(order)
    except folders.Unsafe as error:
        logger.error("the datasite cannot start: %s", error)
        leave(_cannot_begin(order, error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the process ends with it logged and reported
        known = troubles.known_failure(error, Path(order.state_dir))
        _log_end("the datasite cannot start", known or error)
        leave(_cannot_begin(order, known or error))
    signal.signal(signal.SIGHUP, lambda *_: datasite.reload())
    leave(run_guarded(datasite))


def _become(order: LaunchOrder) -> None:
    from fleet_common import process

    refused = process.join_cgroup(order.cgroup)
    state = Path(order.state_dir)
    log = Path(order.log_dir) / f"{order.name}.log"
    process.become(f"fleet: {order.name}", WorkerFolder(state).work, log, order.verbose, state_dir=state)
    if refused:
        logger.warning("%s", refused)
    _set_environment(order)


def _made(order: LaunchOrder) -> Any:
    from datasite_worker.datasite import launched
    from datasite_worker.means import chance, gpu, threads

    chance.draw_afresh()
    threads.use(order.compute.threads)
    gpu.limit_memory(order.compute.gpu_memory_bytes)
    return launched(order, os.getpid())


def _cannot_begin(order: LaunchOrder, error: Exception) -> int:
    """Report the failure of a worker that could not become a datasite, usually because it cannot write a folder."""
    from fleet_common import pulse

    why = f"cannot start: {error}" if isinstance(error, OSError) else _reason(error)
    last = StatusDocument(
        factory_name=order.name,
        factory_hostname=order.advertise,
        factory_port=order.port,
        device="",
        status="failed",
        generation=order.generation,
        pid=os.getpid(),
        phase=Phase.FAILED,
        failure=why,
    )
    pulse.send(order.pulse_address, last)
    lasting = isinstance(error, OSError) and not failures.may_pass(error)
    return ExitCode.CONFIGURATION if lasting else _exit_code(error)


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, KnownFailure) else failures.in_words(error)


def _exit_code(error: Exception) -> ExitCode:
    if isinstance(error, ConfigurationFailure):
        return ExitCode.CONFIGURATION
    return ExitCode.NO_SPACE if isinstance(error, NoSpace) else ExitCode.FAILURE


def _log_end(what: str, error: Exception) -> None:
    """With a traceback, unless the error says all there is to say."""
    if isinstance(error, KnownFailure):
        logger.error("%s", error)
    else:
        logger.error(what, exc_info=error)


def _set_environment(order: LaunchOrder) -> None:
    threads = str(order.compute.threads)
    os.environ.update({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **order.environment})
    if (visible := order.compute.cuda_visible_devices) is not None:
        os.environ.update({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": visible})
    if "TZ" in order.environment:
        import time

        time.tzset()


def run_guarded(datasite: Any) -> int:
    """Run ``datasite``, and turn every error into an exit code, a log line and a reported failure."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: datasite.stop())
    try:
        datasite.run()
    except Exception as error:  # noqa: BLE001 - as above
        _log_end("the datasite failed", error)
        datasite.report_failure(_reason(error))
        return _exit_code(error)
    return ExitCode.CLEAN


def leave(code: int) -> NoReturn:
    """End this process and all its descendants now: PySyft's threads and user code would keep the interpreter alive."""
    from fleet_common.process import end_descendants

    end_descendants()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
