"""Processes, ports, memory and time, as the benches see them. Measures and waits; decides nothing.

Ends only processes that live in the bench's own folder.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import platform
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import psutil

from bench.figures import Setting

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[3]
LOOK = 0.002
"""Seconds between two looks at what is being timed; it bounds how exact a time is."""
_MIB = 1024 * 1024
_CPUCLOCK_SCHED = 2  # clock_getcpuclockid(3): the kernel's number of another process's CPU clock


class Unmeasured(Exception):
    """The bench could not be carried out; the text says why."""


def until(what: Callable[[], T | None], ceiling: float, wanted: str, look: float = 0.05) -> T:
    """The first true answer of ``what``. Raises Unmeasured after ``ceiling`` seconds."""
    give_up = time.monotonic() + ceiling
    while not (answer := what()):
        if time.monotonic() > give_up:
            raise Unmeasured(f"{wanted}: not within {ceiling:g} s")
        time.sleep(look)
    return answer


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(one.getsockname()[1]) for one in sockets]


def get(port: int, path: str, timeout: float = 5.0, headers: Mapping[str, str] | None = None) -> bytes | None:
    """The body of a 200 answer on a connection of its own; None for anything else."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        line.request("GET", path, headers=dict(headers or {}))
        answer = line.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        line.close()
    return body if answer.status == http.HTTPStatus.OK else None


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


def inhabitants(folder: Path) -> list[psutil.Process]:
    """Every living process that works in ``folder`` or names it on its command line, except this one's own line."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [one for one in psutil.process_iter() if one.pid not in own and _lives_in(one, str(folder))]


def _lives_in(process: psutil.Process, folder: str) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return process.cwd().startswith(folder) or any(folder in word for word in process.cmdline())
    except (psutil.Error, OSError):
        return False


def run(command: list[str], folder: Path, timeout: float = 180.0) -> subprocess.CompletedProcess[str]:
    """Run to the end, out of reach of the terminal's Ctrl-C: this process ends what it started itself."""
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False, start_new_session=True
    )


@contextmanager
def room(name: str, remains: list[str]) -> Iterator[Path]:
    """A folder of the bench's own, removed afterwards. What had to be ended by force, or is still there, is added to
    ``remains``: that should be nothing."""
    folder = Path(tempfile.mkdtemp(prefix=f"fleet-bench-{name}-")).resolve()
    try:
        yield folder
    finally:
        ports = _listening(folder)
        remains += [f"bench {name}: {what}" for what in [*end_all(folder), *_still_open(ports)]]
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            remains.append(f"bench {name}: {folder}")


def end_all(folder: Path, patience: float = 10.0) -> list[str]:
    """SIGKILL what still lives in ``folder``, again until nothing does; what that was."""
    ended: dict[int, str] = {}
    give_up = time.monotonic() + patience
    while (left := inhabitants(folder)) and time.monotonic() < give_up:
        for process in left:
            with contextlib.suppress(psutil.Error):
                ended.setdefault(process.pid, f"process {process.pid} ({process.name()})")
                process.send_signal(signal.SIGKILL)
        time.sleep(0.1)
    return list(ended.values())


def _listening(folder: Path) -> set[int]:
    """The TCP ports that processes in ``folder`` listen on."""
    found: set[int] = set()
    for process in inhabitants(folder):
        with contextlib.suppress(psutil.Error):
            found |= {one.laddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    return found


def _still_open(ports: Iterable[int]) -> list[str]:
    return [f"port {port}" for port in ports if _listens(port)]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


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
