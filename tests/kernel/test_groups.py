"""Control groups of a real kernel: who takes too much memory is ended for it, who computes too much is held back.

Small processes stand for the lines here; ``test_lines`` has real ones.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_common.process import join_cgroup
from supervisor.effects.cgroups import FREES, LEAF, LINES, Cgroups
from supervisor.effects.evidence import Evidence
from supervisor.effects.processes import cause_of_code
from supervisor.record import ExitKind
from tests.kernel.unit import SERVICE
from tests.real.harness import eventually

MB = 10**6


def inside(group: Path, what: Callable[[], Any]) -> Any:
    """What ``what`` returns in a process of its own in ``group``, as the unit's main process is."""
    ours, theirs = multiprocessing.get_context("fork").Pipe()

    def run() -> None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
        theirs.send(what())

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        os.waitpid(process.pid or 0, 0)  # its sentinel would wait for the lines, which have inherited it, as well


def line(groups: Cgroups, name: str, work: Callable[[], object]) -> int:
    """A line's process, which has joined its group before this returns, and then does ``work``."""
    folder = groups.make(name)
    joined, tell = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(tell, join_cgroup(folder).encode() or b"in")
        work()
        os._exit(0)
    assert b"in" == os.read(joined, 4096)
    os.close(joined)
    os.close(tell)
    return pid


def take(megabytes: int) -> Callable[[], object]:
    return lambda: [bytearray(b"1" * megabytes * MB), signal.pause()]  # type: ignore[func-returns-value]  # it holds


def burn() -> None:
    while True:
        pass


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_who_takes_more_memory_than_it_may_is_ended_and_the_cause_says_so(unit: Path) -> None:
    """By the kernel, at once; its neighbour lives on. A kill by hand afterwards is no want of memory."""

    def scene() -> Any:
        groups = Cgroups.find({FREES: "1"})
        for name in ("alpha", "beta"):
            groups.make(name)
            groups.limit(name, 60 * MB, 0.0)
        beta = line(groups, "beta", take(10))
        code = ended(line(groups, "alpha", take(200)))
        cause = Evidence().explain(cause_of_code(code), 1, Path("/nowhere"), groups.out_of_memory("alpha"))
        groups.end("alpha")
        lives = os.waitpid(beta, os.WNOHANG) == (0, 0)
        os.kill(beta, signal.SIGKILL)
        return groups.holds("memory"), code, cause.kind, str(cause), lives, ended(beta), groups.out_of_memory("beta")

    held, code, kind, said, lives, *by_hand = inside(unit, scene)
    assert (True, -9, ExitKind.OOM, True, [-9, ""]) == (held, code, kind, lives, by_hand)
    assert "SIGKILL: out of memory: its limit of 0.06 GB (max_memory_usage_gb)" == said


def test_all_lines_together_are_held_to_the_hosts_limit(unit: Path) -> None:
    """Neither is over a limit of its own; the one that dies names the host's."""

    def scene() -> Any:
        groups = Cgroups.find({FREES: "1"})
        groups.limit_all(100 * MB, 0.0)
        lines = {name: line(groups, name, take(70)) for name in ("alpha", "beta")}
        dead, status = os.wait()
        (name,) = [name for name, pid in lines.items() if pid == dead]
        return os.waitstatus_to_exitcode(status), groups.out_of_memory(name)

    code, said = inside(unit, scene)
    assert (-9, True) == (code, said.endswith("GB for all datasites (host: max_memory_usage_gb)"))


def test_who_computes_too_much_is_held_back(unit: Path) -> None:
    """30 % of a core, over three seconds; and the group says for how long it was held back."""

    def scene() -> Any:
        groups = Cgroups.find({FREES: "1"})
        groups.make("alpha")
        groups.limit("alpha", 0, 30.0)
        pid = line(groups, "alpha", burn)
        began, first = time.monotonic(), groups.usage("alpha", pid)
        eventually(lambda: time.monotonic() - began > 3.0, 30.0)
        last, lasted = groups.usage("alpha", pid), time.monotonic() - began
        assert first is not None
        assert last is not None
        return (last.cpu_s - first.cpu_s) / lasted, (last.held_back_s - first.held_back_s) / lasted

    share, held_back = inside(unit, scene)
    assert share < 0.36
    assert held_back > 0.3


def test_memory_is_that_of_the_line_alone(unit: Path) -> None:
    """With its children; not what it inherited, and not the cache of what it read."""

    def scene() -> Any:
        groups = Cgroups.find({FREES: "1"})
        pid = line(groups, "alpha", take(50))
        eventually(lambda: (groups.usage("alpha", pid) or _NOTHING).memory > 50 * MB, 30.0)
        return (groups.usage("alpha", pid) or _NOTHING).memory

    assert 50 * MB < inside(unit, scene) < 130 * MB  # the list that the bytes were made of may not be given back yet


class _NOTHING:
    memory = 0


def test_the_next_supervisor_can_start_in_a_group_whose_lines_live_on(unit: Path) -> None:
    """With systemd before 254. The kernel refuses it while lines have controllers; what the unit runs after the
    supervisor's end frees the group; the successor's lines are then held again, the living one too."""
    from supervisor.faces.systemd import unit_text
    from tests.unit.test_systemd_unit import directives, plan, script_of

    def scene() -> Any:
        groups = Cgroups.find({FREES: "1"})
        pid = line(groups, "alpha", take(5))
        groups.limit("alpha", 60 * MB, 50.0)
        return pid, Path("/proc/self/cgroup").read_text()

    def successor() -> Any:
        groups = Cgroups.find({FREES: "1"})
        groups.limit("alpha", 60 * MB, 50.0)
        return groups.holds("memory"), groups.holds("cpu"), groups.usage("alpha", pid) is not None

    pid, sat = inside(unit, scene)
    assert f"/{SERVICE}/{LEAF}" in sat
    with pytest.raises(OSError, match="busy"):
        (unit / "cgroup.procs").write_text(str(os.getpid()))
    control = unit / ".control"
    control.mkdir()
    script = script_of(directives(unit_text(plan(systemd=252)))["ExecStopPost"][-1])
    command = ["sh", "-c", f'echo $$ >"{control}/cgroup.procs"; exec sh -c "$0"', script]
    subprocess.run(command, check=True, capture_output=True)
    assert "" == (unit / "cgroup.subtree_control").read_text().strip()
    assert (True, True, True) == inside(unit, successor)
    assert 60 * MB - 4096 <= int((unit / LINES / "line-alpha" / "memory.max").read_text()) <= 60 * MB
    assert Path(f"/proc/{pid}").exists()


def test_controllers_stay_off_where_the_next_start_would_fail(unit: Path) -> None:
    """A unit of an older fleet says nothing of freeing its group: lines get groups, and no limits of the kernel."""

    def scene() -> Any:
        groups = Cgroups.find({})
        pid = line(groups, "alpha", take(5))
        return groups.holds("memory"), groups.usage("alpha", pid), Path("/proc/self/cgroup").read_text()

    held, usage, sat = inside(unit, scene)
    assert (False, None, True) == (held, usage, sat.strip().endswith(SERVICE))
