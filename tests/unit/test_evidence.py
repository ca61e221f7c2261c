"""What the kernel knows of an end beyond its signal: out of memory, by its log or its count; and a core file."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.effects import evidence as module
from supervisor.effects.evidence import Evidence
from supervisor.effects.processes import cause_of_code
from supervisor.record import ExitCause, ExitKind

KILLED = cause_of_code(-9)
NOWHERE = Path("/nowhere")
OOM = "6,{0},99,-;Memory cgroup out of memory: Killed process {0} (fleet: alpha) total-vm:9000kB, anon-rss:8000kB\n"


@pytest.fixture
def kmsg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel log of our own pid namespace, whichever that is here."""
    monkeypatch.setattr(module, "_FIRST_PID_NAMESPACE", str(Path("/proc/self/ns/pid").readlink()))
    path = tmp_path / "kmsg"
    path.write_text(OOM.format(66))
    return path


@pytest.fixture
def vmstat(tmp_path: Path) -> Path:
    path = tmp_path / "vmstat"
    count(path, 4)
    return path


def count(path: Path, kills: int) -> None:
    path.write_text(f"nr_free_pages 1234\noom_kill {kills}\noom_kill_other 77\n")


@pytest.fixture
def by_log(kmsg: Path, vmstat: Path) -> Iterator[Evidence]:
    made = Evidence(kmsg, vmstat)
    yield made
    if made._log is not None:
        os.close(made._log)


def append(path: Path, text: str) -> None:
    with path.open("a") as log:
        log.write(text)


def test_the_kernels_log_names_the_victim(by_log: Evidence, kmsg: Path) -> None:
    """Whoever it names was killed for want of memory, each once; whoever it does not name was not."""
    append(kmsg, OOM.format(77) + "6,1,2,-;something else\n" + OOM.format(78))
    certain = replace(KILLED, kind=ExitKind.OOM, detail="SIGKILL: out of memory (kernel log)")
    assert [certain, certain, KILLED] == [by_log.explain(KILLED, pid, NOWHERE) for pid in (78, 77, 79)]
    assert KILLED == by_log.explain(KILLED, 77, NOWHERE)  # a later process of that pid


def test_what_was_logged_before_is_an_earlier_process(by_log: Evidence) -> None:
    """A pid is given out again; only what the log says from now on counts."""
    assert KILLED == by_log.explain(KILLED, 66, NOWHERE)


def test_where_the_log_can_be_read_a_rising_count_alone_says_nothing(by_log: Evidence, vmstat: Path) -> None:
    """The kernel killed somebody, and the log says that it was not ours."""
    count(vmstat, 5)
    assert KILLED == by_log.explain(KILLED, 77, NOWHERE)


def test_without_the_log_the_count_makes_it_likely(vmstat: Path) -> None:
    """And is called so; each kill explains one end only."""
    seen = Evidence(NOWHERE, vmstat)
    assert KILLED == seen.explain(KILLED, 77, NOWHERE)
    count(vmstat, 5)
    likely = replace(KILLED, kind=ExitKind.OOM, detail="SIGKILL: probably out of memory (kernel counter)")
    assert [likely, KILLED] == [seen.explain(KILLED, 77, NOWHERE), seen.explain(KILLED, 78, NOWHERE)]


def test_the_log_of_another_pid_namespace_is_not_believed(
    kmsg: Path, vmstat: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the kernel's pids are not ours: one that happens to be equal would be blamed."""
    monkeypatch.setattr(module, "_FIRST_PID_NAMESPACE", "pid:[1]")
    seen = Evidence(kmsg, vmstat)
    append(kmsg, OOM.format(77))
    assert KILLED == seen.explain(KILLED, 77, NOWHERE)


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    """Neither log nor count: the signal is all that is known."""
    assert KILLED == Evidence(NOWHERE, NOWHERE).explain(KILLED, 77, tmp_path)


@pytest.mark.parametrize("code", [0, 70, -15, -11, None])
def test_only_sigkill_can_be_the_kernels(by_log: Evidence, kmsg: Path, tmp_path: Path, code: int | None) -> None:
    """Every other end is what it is, whatever the log says of that pid."""
    append(kmsg, OOM.format(77))
    assert cause_of_code(code) == by_log.explain(cause_of_code(code), 77, tmp_path)


@pytest.mark.process
def test_a_real_core_file_is_named(tmp_path: Path) -> None:
    """Where the kernel writes cores into the working directory, the event says where it lies."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern not in ("core", "core.%p"):
        pytest.skip(f"the kernel writes core files elsewhere here (core_pattern {pattern})")
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    crash = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, {}); os.abort()"
    child = subprocess.Popen([sys.executable, "-S", "-c", crash.format(unlimited)], cwd=tmp_path)
    if not any(tmp_path.glob("core*")) and child.wait() and not any(tmp_path.glob("core*")):
        pytest.skip("the sandbox writes no core file, though its core_pattern says so")
    (core,) = tmp_path.glob("core*")
    cause = cause_of_code(child.wait())
    expected = replace(cause, detail=f"SIGABRT, core dumped: {core}")
    assert (expected, ExitKind.SIGNAL) == (Evidence().explain(cause, child.pid, tmp_path), cause.kind)


def test_an_old_core_file_is_an_earlier_crashs(tmp_path: Path) -> None:
    """It explains nothing of this end."""
    (tmp_path / "core").write_bytes(b"x")
    os.utime(tmp_path / "core", (1_000_000, 1_000_000))
    segfault = ExitCause(ExitKind.SIGNAL, "SIGSEGV", -11, "SIGSEGV")
    assert segfault == Evidence().explain(segfault, 77, tmp_path)
