"""Memory, CPU time and this machine, as the benches see them. Measures; decides nothing, and ends nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from fleet_tools.bench.figures import Setting
from fleet_tools.waiting import Trouble

ROOT = Path(__file__).resolve().parents[3]
LOOK = 0.002
"""Seconds between two looks at what is being timed; it bounds how exact a time is."""
_MIB = 1024 * 1024
_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the kernel's number of another process's CPU clock


class Unmeasured(Trouble):
    """The bench could not be carried out; the text says why."""


# --- processes ---


def pss(pid: int) -> float:
    """Proportional set size in MiB: private pages, and this process's share of shared ones."""
    return float(psutil.Process(pid).memory_full_info().pss) / _MIB


def family(pid: int) -> list[psutil.Process]:
    """The process and all of its descendants."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """CPU time of the process, ended threads included. Its own CPU clock counts nanoseconds, where /proc has ticks."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def listener(pid: int, port: int) -> int | None:
    """The pid, among ``pid`` and its descendants, that listens on ``port``."""
    for process in family(pid):
        with contextlib.suppress(psutil.Error):
            if any(
                one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in process.net_connections("tcp")
            ):
                return int(process.pid)
    return None


# --- the machine ---


def setting(command: str) -> Setting:
    return Setting(
        command=command,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        cpu=_cpu_model(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=round(psutil.virtual_memory().total / 1024**3, 1),
        load=round(os.getloadavg()[0], 2),
        kernel=platform.release(),
        python=platform.python_version(),
        fleet=_own_version(),
        syft=version("syft"),
        torch=version("torch"),
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _own_version() -> str:
    """With the commit, where there is one to name."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    commit = asked.stdout.strip()
    return f"{version('datasite-fleet')} ({commit})" if commit else version("datasite-fleet")
