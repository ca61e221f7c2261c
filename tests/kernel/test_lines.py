"""Real PySyft lines in control groups that hold them: what the kernel does to a training, to a datasite, to its neighbour.

The supervisor runs as systemd from 254 on starts it: in a leaf of the unit's group.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from syft.service.job.job_stash import JobStatus

from fleet_tools.temporary_fleet import brought_up
from supervisor.effects.cgroups import LEAF, LINES
from tests.kernel.unit import a_unit
from tests.real.harness import PATIENCE, Fleet, answers, eventually
from tests.real.test_supervision import events

MB = 10**6
MEMORY_MB = 400
CPU_PERCENT = 30.0
CUT_OFF = "interrupted: its process was killed by SIGKILL"


class HeldFleet(Fleet):
    """Alpha is held to its memory, beta to its CPU. A test may change the figures."""

    memory_mb = MEMORY_MB
    host = "{}"

    def write(self) -> None:
        self.file.write_text(
            f"version: 1\nname: test\ndashboard: {{mode: embedded, port: {self.dashboard}}}\nhost: {self.host}\n"
            f"defaults: {{heartbeat_interval: 1, probes: {{startup: {{failure_threshold: {120 * PATIENCE:g}}}}}}}\n"
            f"datasites:\n"
            f"  - {{name: alpha, port: {self.alpha}, resources: {{max_memory_usage_gb: {self.memory_mb / 1000}}}}}\n"
            f"  - {{name: beta, port: {self.beta}, resources: {{max_cpu_usage_percent: {CPU_PERCENT}}}}}\n"
        )

    def reload(self) -> None:
        self.write()
        done = self.run("reload")
        assert 0 == done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def group() -> Iterator[Path]:
    """The unit's, with the leaf that the supervisor starts in."""
    with a_unit() as made:
        (made / LEAF).mkdir()
        yield made


@pytest.fixture(scope="module")
def fleet(group: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeldFleet]:
    made = HeldFleet(tmp_path_factory.mktemp("held"))
    made.through = ("sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / LEAF / "cgroup.procs"))
    with brought_up(made):
        yield made


def hold_memory(megabytes):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import select

    held = b"1" * (megabytes * 1_000_000)
    select.select([], [], [], 600)
    return len(held)


def burn():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import time

    end = time.monotonic() + 600
    while time.monotonic() < end:
        pass
    return 0


def submitted(client: Any, function: Callable[..., Any]) -> Any:
    """``function`` as the admin's, ready to be called."""
    import syft as sy

    client.code.request_code_execution(sy.syft_function()(function)).approve(approve_nested=True)
    return getattr(client.code, function.__name__)


def in_thread(call: Callable[[], Any]) -> None:
    def run() -> None:
        with suppress(Exception):  # the connection breaks when the datasite ends
            call()

    threading.Thread(target=run, daemon=True).start()


def told(fleet: Fleet, name: str, kind: str, cause: str) -> list[str]:
    return [event["text"] for event in events(fleet, name) if (event["event"], event["cause"]) == (kind, cause)]


def cpu_seconds(line: Path) -> float:
    (usage,) = [row.split()[1] for row in (line / "cpu.stat").read_text().splitlines() if row.startswith("usage_usec ")]
    return int(usage) / 1e6


@pytest.mark.slow
def test_a_line_is_held_in_a_group_of_its_own(fleet: HeldFleet, group: Path) -> None:
    """With its limits, and with all its processes; what it weighs there is what is its own."""
    alpha, beta = fleet.line("alpha"), fleet.line("beta")
    assert ("cgroup", "cgroup") == (alpha["enforced"], beta["enforced"])
    held = group / LINES / "line-alpha"
    assert str(alpha["pid"]) in (held / "cgroup.procs").read_text().split()
    assert MEMORY_MB * MB - 4096 <= int((held / "memory.max").read_text()) <= MEMORY_MB * MB
    assert "30000 100000" == (group / LINES / "line-beta" / "cpu.max").read_text().strip()
    assert int((held / "memory.current").read_text()) < MEMORY_MB * MB * 0.75
    assert "the kernel enforces limits of cpu and memory" in fleet.log("fleet")


@pytest.mark.slow
def test_a_training_that_takes_too_much_is_ended_and_its_datasite_serves_on(fleet: HeldFleet) -> None:
    """The kernel takes the biggest process of the line: the job. It is marked, told, and the next one runs."""
    before = fleet.line("alpha")
    client = fleet.login("alpha", fleet.alpha)
    hold = submitted(client, hold_memory)
    job = hold(megabytes=2 * MEMORY_MB, blocking=False)
    assert CUT_OFF == job.wait(timeout=int(60 * PATIENCE)).message
    assert before["pid"] == fleet.line("alpha")["pid"] == (answers(fleet.alpha) or {})["pid"]
    (text,) = eventually(lambda: told(fleet, "alpha", "limit_reached", "oom"))
    assert text.startswith("out of memory: the kernel killed ")
    assert 0 == fleet.line("alpha")["restarts"]


@pytest.mark.slow
def test_a_datasite_that_takes_too_much_is_ended_and_back_with_its_data(fleet: HeldFleet) -> None:
    """Code that runs in the serving process: the cause names the limit; the neighbour notices nothing."""
    import syft as sy

    before, neighbour = fleet.line("alpha"), fleet.line("beta")
    client = fleet.login("alpha", fleet.alpha)
    data = np.arange(1000)
    client.upload_dataset(sy.Dataset(name="kept", asset_list=[sy.Asset(name="x", data=data, mock=data[:4])]))
    hold = client.code.hold_memory
    in_thread(lambda: hold(megabytes=2 * MEMORY_MB))
    back = eventually(lambda: (line := fleet.line("alpha"))["ready"] and line["pid"] != before["pid"] and line)
    assert "SIGKILL: out of memory: its limit of 0.4 GB (max_memory_usage_gb)" == back["last_exit"]
    assert 1 == back["restarts_by_cause"]["oom"] == back["restarts"]
    assert data.tolist() == client.datasets[0].assets["x"].data.tolist()
    after = fleet.line("beta")
    assert (neighbour["pid"], 0, True) == (after["pid"], after["restarts"], after["ready"])


@pytest.mark.slow
def test_a_training_that_computes_too_much_is_held_back(fleet: HeldFleet, group: Path) -> None:
    """To 30 % of a core; told, and no longer when it ends; its datasite answers meanwhile, as the same process."""
    before = fleet.line("beta")
    job = submitted(fleet.login("beta", fleet.beta), burn)(blocking=False)
    eventually(lambda: job.fetched_status is JobStatus.PROCESSING)
    line = group / LINES / "line-beta"
    spent, at = cpu_seconds(line), time.monotonic()
    eventually(lambda: time.monotonic() - at > 10.0)
    share = 100 * (cpu_seconds(line) - spent) / (time.monotonic() - at)
    assert CPU_PERCENT * 0.8 < share <= CPU_PERCENT * 1.2
    assert "cpu" in eventually(lambda: fleet.line("beta")["limited"])
    assert ["burn"] == (answers(fleet.beta) or {})["active_experiments"]
    job.kill()
    eventually(lambda: fleet.line("beta")["limited"] == {})
    assert told(fleet, "beta", "limit_reached", "cpu")
    assert told(fleet, "beta", "limit_cleared", "cpu")
    assert before["pid"] == fleet.line("beta")["pid"]


@pytest.mark.slow
def test_the_next_supervisor_holds_the_lines_that_outlived_the_last(fleet: HeldFleet, group: Path) -> None:
    """They are adopted in their groups; a reload changes what the running process is held to."""
    before = {name: fleet.line(name)["pid"] for name in ("alpha", "beta")}
    os.kill(json.loads(fleet.run("status", "--json").stdout)["supervisor"]["pid"], signal.SIGKILL)
    fleet.up()
    assert before == {name: fleet.line(name)["pid"] for name in ("alpha", "beta")}
    assert "cgroup" == fleet.line("alpha")["enforced"]
    fleet.memory_mb = MEMORY_MB + 100
    fleet.reload()
    held = group / LINES / "line-alpha" / "memory.max"
    eventually(lambda: fleet.memory_mb * MB - 4096 <= int(held.read_text()) <= fleet.memory_mb * MB)
    assert before["alpha"] == fleet.line("alpha")["pid"]


@pytest.mark.slow
def test_all_lines_together_are_held_to_the_hosts_limit(fleet: HeldFleet, group: Path) -> None:
    """Neither line is over a limit of its own; the training that goes is told with the host's limit."""
    in_use = int((group / LINES / "memory.current").read_text())
    fleet.host = f"{{max_memory_usage_gb: {(in_use + 300 * MB) / 1e9:.3f}}}"
    fleet.reload()
    pids = {name: fleet.line(name)["pid"] for name in ("alpha", "beta")}
    job = submitted(fleet.login("beta", fleet.beta), hold_memory)(megabytes=600, blocking=False)
    assert CUT_OFF == job.wait(timeout=int(60 * PATIENCE)).message
    eventually(lambda: told(fleet, "beta", "limit_reached", "oom"))
    assert pids == {name: fleet.line(name)["pid"] for name in ("alpha", "beta")}
    assert 0 == fleet.line("beta")["restarts"]
