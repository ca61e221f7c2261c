"""Limits that are really reached: a disk that fills up, megabytes over a narrow wire, trainings that wait for their turn,
memory and CPU of user code.

On a machine that delegates no control group, so memory and CPU are watched; what the kernel does with a control group is
``tests/kernel``'s.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fleet_tools.temporary_fleet import brought_up
from supervisor.faces.client import ControlClient
from supervisor.policy import limits
from tests.real.harness import Fleet, answers, eventually, select_nothing
from tests.real.test_supervision import events

MB = 10**6
DISK_MB = 160
KEEP_MB = 60
RATE = 4 * MB  # bytes a second, of 32 Mbit/s
MEMORY_GB = 0.6


class LimitedFleet(Fleet):
    """Each line with limits of its own, which a test may change; its state lies on a small disk."""

    alphas = f"{{disk_space_threshold_gb: {KEEP_MB / 1000}, max_memory_usage_gb: {MEMORY_GB}}}"
    betas = "{}"

    def write(self) -> None:
        self.file.write_text(
            f"version: 1\nname: test\ndashboard: {{mode: embedded, port: {self.dashboard}}}\n"
            f"defaults: {{heartbeat_interval: 1}}\ndatasites:\n"
            f"  - {{name: alpha, port: {self.alpha}, resources: {self.alphas}}}\n"
            f"  - {{name: beta, port: {self.beta}, resources: {self.betas}}}\n"
        )

    def reload(self, *, betas: str) -> None:
        self.betas = betas
        self.write()
        done = self.run("reload")
        assert 0 == done.returncode, done.stdout + done.stderr


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A tmpfs at ``folder``."""
    folder.mkdir()
    size = f"size={DISK_MB * MB},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "fleet-test", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a disk of its own needs root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LimitedFleet]:
    folder = tmp_path_factory.mktemp("limited")
    with small_disk(folder / ".fleet"), brought_up(LimitedFleet(folder)) as made:
        yield made


def told(fleet: Fleet, name: str, kind: str, cause: str) -> list[dict[str, Any]]:
    return [event for event in events(fleet, name) if (event["event"], event["cause"]) == (kind, cause)]


def limited(fleet: Fleet, name: str) -> dict[str, str]:
    """What bites that line now; by the control socket, as the command line may take longer than the limit bites."""
    with ControlClient(fleet.folder / ".fleet") as client:
        return next(line.limited for line in client.status().datasites if line.name == name)


def upload(client: Any, name: str, megabytes: float) -> Any:
    import syft as sy

    data = np.random.default_rng(0).integers(0, 255, round(megabytes * MB), dtype=np.uint8)
    asset = sy.Asset(name="x", data=data, mock=data[:4])
    return client.upload_dataset(sy.Dataset(name=name, asset_list=[asset]))


def run_inside(client: Any, code: Callable[[], Any]) -> None:
    """Submit ``code`` as the admin's and call it from a thread; it may end with its line."""
    import syft as sy

    client.code.submit(sy.syft_function()(code))

    def call() -> None:
        with suppress(Exception):  # the connection breaks when the line is restarted
            getattr(client.code, code.__name__)()

    threading.Thread(target=call, daemon=True).start()


def queue(client: Any, code: Callable[..., Any], times: list[dict[str, Any]]) -> list[Any]:
    """The jobs of ``code``, submitted as the admin's, with each of the arguments."""
    import syft as sy

    client.code.request_code_execution(sy.syft_function(share_results_with_owners=True)(code)).approve()
    return [getattr(client.code, code.__name__)(blocking=False, **arguments) for arguments in times]


def wait_for_file(place):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - PySyft ships its source
    import pathlib
    import select

    while not pathlib.Path(place).exists():
        select.select([], [], [], 0.05)
    return "seen"


# --- the disk ---


def test_every_call_that_is_refused_is_one_of_pysyfts() -> None:
    """A name that PySyft does not know would guard nothing."""
    import syft  # noqa: F401 - registers its services
    from syft.service.service import ServiceConfigRegistry

    from datasite_worker.pysyft.uploads import UPLOADS

    assert [] == [path for path in sorted(UPLOADS) if not ServiceConfigRegistry.path_exists(path)]


def test_a_disk_that_fills_up_refuses_uploads_and_nothing_else(fleet: LimitedFleet) -> None:
    """Before it is full, in words that say what to do; it recovers by itself, in the same process."""
    before = fleet.line("alpha")
    client = fleet.login("alpha", fleet.alpha)
    upload(client, "before", 2)
    filler = fleet.folder / ".fleet" / "filler"
    free = psutil.disk_usage(str(filler.parent)).free
    filler.write_bytes(b"\0" * (free - (KEEP_MB - 5) * MB))
    with pytest.raises(Exception, match=r"disk is nearly full: .* are free, and 0\.06 GB must stay free") as refused:
        upload(client, "during", 2)
    assert "Ask the datasite's owner to free disk space" in str(refused.value)
    assert ["before"] == [dataset.name for dataset in fleet.login("alpha", fleet.alpha).datasets]
    assert 2 * MB == len(client.datasets[0].assets["x"].data)
    eventually(lambda: "disk" in fleet.line("alpha")["limited"], 30.0)
    assert "disk" in (answers(fleet.alpha) or {})["limited"]
    assert "uploads are refused" in fleet.run("status").stdout
    assert {} == fleet.line("beta")["limited"]
    filler.unlink()
    eventually(lambda: fleet.line("alpha")["limited"] == {}, 30.0)
    upload(client, "after", 2)
    assert {"before", "after"} == {dataset.name for dataset in client.datasets}
    assert [1, 1] == [len(told(fleet, "alpha", kind, "disk")) for kind in ("limit_reached", "limit_cleared")]
    assert before["pid"] == fleet.line("alpha")["pid"]


def test_one_upload_that_would_fill_the_disk_is_refused(fleet: LimitedFleet) -> None:
    """PySyft announces its size; a smaller one is taken."""
    client = fleet.login("alpha", fleet.alpha)
    free = psutil.disk_usage(str(fleet.folder / ".fleet")).free / MB
    with pytest.raises(Exception, match="would leave less"):
        upload(client, "huge", free - KEEP_MB + 10)
    upload(client, "small", 2)
    assert {} == fleet.line("alpha")["limited"]


# --- the network ---


@pytest.mark.alone
@pytest.mark.slow
def test_uploads_and_downloads_keep_the_rate(fleet: LimitedFleet) -> None:
    """A limit that a reload sets holds for the running process, in both directions; probes pass; lifted, it is gone."""
    before = fleet.line("beta")["pid"]
    fleet.reload(betas="{network_bandwidth_limit_mbps: 32}")
    client = fleet.login("beta", fleet.beta)
    eventually(lambda: "network_bandwidth_limit_mbps" in fleet.line("beta")["limits"])
    size, least = 24, 24 * MB / RATE - 1.0
    began = time.monotonic()
    thread = threading.Thread(target=upload, args=(client, "wide", size))
    thread.start()
    slowest = 0.0
    while thread.is_alive():
        asked = time.monotonic()
        assert answers(fleet.beta)
        slowest = max(slowest, time.monotonic() - asked)
        select_nothing()
    assert time.monotonic() - began >= least
    assert slowest < 24 * MB / RATE / 2  # one that waited for the upload's turn would have been slower
    began = time.monotonic()
    assert size * MB == len(client.datasets[0].assets["x"].data)
    assert time.monotonic() - began >= least
    eventually(lambda: told(fleet, "beta", "limit_reached", "bandwidth"), 30.0)
    fleet.reload(betas=LimitedFleet.betas)
    eventually(lambda: told(fleet, "beta", "limit_cleared", "bandwidth"), 30.0)
    assert before == fleet.line("beta")["pid"]


# --- trainings ---


def test_trainings_wait_for_their_turn_and_that_is_told(fleet: LimitedFleet, tmp_path: Path) -> None:
    """One of three may run. It is told how many wait, once; a limit that a reload raises lets them in, and is cleared."""
    before = fleet.line("beta")["pid"]
    fleet.reload(betas="{max_concurrent_training_sessions: 1}")
    eventually(lambda: fleet.line("beta")["limits"]["max_concurrent_training_sessions"] == 1)
    places = [{"place": f"{tmp_path}/{number}"} for number in range(3)]
    queue(fleet.login("beta", fleet.beta), wait_for_file, places)
    words = "1 training runs, 2 wait: at most 1 may run at the same time"
    eventually(lambda: limited(fleet, "beta").get("training_sessions") == words)
    assert ["wait_for_file"] == fleet.line("beta")["active_experiments"]
    shown = fleet.run("status").stdout
    assert f"beta at its limit: {words}" in shown
    assert 1 == len(told(fleet, "beta", "limit_reached", "training_sessions"))
    fleet.reload(betas="{max_concurrent_training_sessions: 3}")
    eventually(lambda: ["wait_for_file"] * 3 == fleet.line("beta")["active_experiments"])
    eventually(lambda: told(fleet, "beta", "limit_cleared", "training_sessions"), 30.0)
    for place in places:
        Path(place["place"]).touch()
    eventually(lambda: (line := fleet.line("beta"))["active_experiments"] == [] and line["last_training_completion"])
    assert ({}, before) == (limited(fleet, "beta"), fleet.line("beta")["pid"])


# --- memory and CPU, watched ---


def hold_memory() -> int:
    import time

    held = bytearray(b"1" * 700_000_000)
    time.sleep(120)
    return len(held)


def burn_two_cores() -> int:
    import hashlib
    import threading
    import time

    end = time.monotonic() + 400

    def burn() -> None:
        while time.monotonic() < end:
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000)

    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


@pytest.fixture(scope="module")
def busy(fleet: LimitedFleet) -> int:
    """The pid of beta, in which user code computes from now on, with a limit that a reload has just brought."""
    before = fleet.line("beta")
    fleet.reload(betas="{max_cpu_usage_percent: 20}")
    run_inside(fleet.login("beta", fleet.beta), burn_two_cores)
    return int(before["pid"])


@pytest.mark.usefixtures("busy")
def test_who_takes_too_much_memory_is_restarted(fleet: LimitedFleet) -> None:
    """Told, and restarted gracefully after three looks, with its cause; its neighbour, at work, notices nothing."""
    before, neighbour = fleet.line("alpha"), fleet.line("beta")["pid"]
    assert "watch" == before["enforced"]
    run_inside(fleet.login("alpha", fleet.alpha), hold_memory)
    reached = eventually(lambda: limited(fleet, "alpha"), 90.0)
    assert ["memory"] == list(reached)
    back = eventually(lambda: (line := fleet.line("alpha"))["ready"] and line["pid"] != before["pid"] and line)
    assert 1 == back["restarts_by_cause"]["memory_limit"] == back["restarts"] - before["restarts"]
    assert back["last_exit"].startswith("memory limit: uses ")
    assert told(fleet, "alpha", "limit_reached", "memory")
    (stop,) = told(fleet, "alpha", "stopping", "memory_limit")
    assert stop["text"].endswith(f"of {MEMORY_GB:g} GB of memory")
    assert {} == back["limited"]
    assert neighbour == fleet.line("beta")["pid"]
    assert f"/{MEMORY_GB:g} GB" in fleet.run("status").stdout


@pytest.mark.slow
@pytest.mark.alone
def test_who_computes_too_much_is_bound_to_its_cores(fleet: LimitedFleet, busy: int) -> None:
    """Two threads' worth of user code on the one core that 20 % rounds up to: told, and the line serves on."""
    process = psutil.Process(busy)
    eventually(lambda: limited(fleet, "beta").get("cpu"), limits.PERIOD * (limits.LOOKS + 6))
    spent, at = sum(process.cpu_times()[:2]), time.monotonic()
    eventually(lambda: time.monotonic() - at > 5.0)
    share = 100 * (sum(process.cpu_times()[:2]) - spent) / (time.monotonic() - at)
    assert 20.0 < share <= 110.0
    if len(os.sched_getaffinity(0)) > 1:
        assert 1 == len(os.sched_getaffinity(busy))
    assert 1 == len(told(fleet, "beta", "limit_reached", "cpu"))
    assert busy == fleet.line("beta")["pid"]
    assert answers(fleet.beta)


# --- load ---


def at_dashboard(fleet: Fleet, name: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"http://127.0.0.1:{fleet.dashboard}/factories", timeout=5) as answer:
        factories = json.load(answer)["factories"]
    found: dict[str, Any] = next(one for one in factories if one["factory_name"] == name)
    return found


@pytest.mark.usefixtures("busy")
def test_the_load_figures_are_real(fleet: LimitedFleet) -> None:
    """In the status and at the dashboard, where the heartbeat brought them: a machine that serves and trains is not at
    0 %; and what runs, and when a training last completed, is what the datasite itself says."""
    eventually(lambda: at_dashboard(fleet, "beta")["active_experiments"] == ["burn_two_cores"], 30.0)
    status, beat = answers(fleet.beta) or {}, at_dashboard(fleet, "beta")
    for figures in (status["current_load"], beat["load"]):
        assert {"cpu_usage", "memory_usage", "disk_usage", "network_latency"} == set(figures)
        assert 0.0 < figures["cpu_usage"] <= 100.0
        assert abs(figures["memory_usage"] - psutil.virtual_memory().percent) < 20.0
        used = psutil.disk_usage(str(fleet.folder / ".fleet")).percent
        assert figures["disk_usage"] == pytest.approx(used, abs=15.0)
        assert 0.0 < figures["network_latency"] < 5000.0
    assert ["burn_two_cores"] == status["active_experiments"]
    assert status["last_training_completion"] == beat["last_training_completion"] is not None
    assert 20.0 < status["memory_mb"] < 1000.0
