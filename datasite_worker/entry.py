"""A worker process's first step. Standard library only until the process has become itself: the environment, above all
the GPUs and the number of threads, is set before anything of torch is used."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from datasite_worker.contract import ExitCode, LaunchOrder


def run(order: LaunchOrder) -> None:
    """Run one datasite until SIGTERM or SIGINT. Never returns: the process ends with an ``ExitCode``."""
    from datasite_worker import process

    refused = process.join_cgroup(order.cgroup)
    state = Path(order.state_dir)
    log = Path(order.log_dir) / f"{order.name}.log"
    process.become(f"fleet: {order.name}", state / "work", log, order.verbose, state_dir=state)
    if refused:
        logging.getLogger(__name__).warning("%s", refused)
    _set_environment(order)
    leave(_guarded(order))


def _set_environment(order: LaunchOrder) -> None:
    threads = str(order.threads)
    os.environ.update({"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, **order.environment})
    if order.cuda_visible_devices is not None:
        os.environ.update({"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": order.cuda_visible_devices})
    if "TZ" in order.environment:
        import time

        time.tzset()


def _guarded(order: LaunchOrder) -> int:
    from datasite_worker.datasite import FactoryDatasite, limit_threads

    limit_threads(order.threads)
    datasite = FactoryDatasite.from_order(order, os.getpid())
    return run_guarded(datasite)


def run_guarded(datasite: Any) -> int:
    """Run ``datasite`` and turn every fault into an exit code, a line in the log and a last word."""
    from datasite_worker.process import ConfigurationFailure

    logger = logging.getLogger(__name__)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: datasite.stop())
    try:
        datasite.run()
    except ConfigurationFailure as failure:
        logger.error("%s", failure)
        datasite.report_failure(str(failure))
        return ExitCode.CONFIGURATION
    except Exception as error:
        logger.exception("the datasite failed")
        datasite.report_failure(f"{type(error).__name__}: {error}")
        return ExitCode.FAILURE
    return ExitCode.CLEAN


def leave(code: int) -> None:
    """End this process now: PySyft's threads, and user code in a job, would keep the interpreter from ending."""
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)
