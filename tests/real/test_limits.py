"""Limits that are really reached: a disk that fills up, megabytes over a narrow wire, memory and CPU of user code.

On a machine that delegates no control group, so memory and CPU are watched; what the kernel does with a control group is
``tests/systemd``'s.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

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
    betas = "{max_cpu_usage_percent: 20}"

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
    with small_disk(folder / ".fleet"):
        made = LimitedFleet(folder)
        try:
            made.up()
            yield made
        finally:
            made.down()


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


# --- the disk ---


def test_every_call_that_is_refused_is_one_of_pysyfts() -> None:
    """A name that PySyft does not know would guard nothing."""
    import syft  # noqa: F401 - registers its services
    from syft.service.service import ServiceConfigRegistry

    from datasite_worker.limits import UPLOADS

    assert [] == [path for path in sorted(UPLOADS) if not ServiceConfigRegistry.path_exists(path)]


def test_a_disk_that_fills_up_refuses_uploads_and_nothing_else(fleet: LimitedFleet) -> None:
    """Before it is full, in words that say what to do; it recovers by itself, in the same process."""
    before = fleet.line("alpha")
    client = fleet.login("alpha", fleet.alpha)
    upload(client, "before", 2)
    filler = fleet.folder / ".fleet" / "filler"
    free = psutil.disk_usage(str(filler.parent)).free
    filler.write_bytes(b"\0" * (free - (KEEP_MB - 5) * MB))
    with pytest.raises(Exception, match=r"disk is nearly full: .* are free and 0\.06 GB are to be kept") as refused:
        upload(client, "during", 2)
    assert "ask the datasite's owner to make room" in str(refused.value)
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


def test_uploads_and_downloads_keep_the_rate(fleet: LimitedFleet) -> None:
    """A limit that a reload sets holds for the running process, in both directions; probes pass; lifted, it is gone."""
    before = fleet.line("beta")["pid"]
    fleet.reload(betas="{max_cpu_usage_percent: 20, network_bandwidth_limit_mbps: 32}")
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

    end = time.monotonic() + 180

    def burn() -> None:
        while time.monotonic() < end:
            hashlib.pbkdf2_hmac("sha256", b"x", b"y", 200_000)

    threads = [threading.Thread(target=burn) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def test_who_takes_too_much_memory_is_restarted(fleet: LimitedFleet) -> None:
    """Told, and restarted gracefully after three looks, with its cause; its neighbour notices nothing."""
    before, neighbour = fleet.line("alpha"), fleet.line("beta")["pid"]
    assert "watch" == before["enforced"]
    run_inside(fleet.login("alpha", fleet.alpha), hold_memory)
    reached = eventually(lambda: limited(fleet, "alpha"), 90.0)
    assert ["memory"] == list(reached)
    back = eventually(lambda: (line := fleet.line("alpha"))["ready"] and line["pid"] != before["pid"] and line)
    assert 1 == back["restarts_by_cause"]["memory_limit"] == back["restarts"] - before["restarts"]
    assert back["last_exit"].startswith("memory limit: takes ")
    assert told(fleet, "alpha", "limit_reached", "memory")
    (stop,) = told(fleet, "alpha", "stopping", "memory_limit")
    assert stop["text"].endswith(f"of {MEMORY_GB:g} GB of memory")
    assert {} == back["limited"]
    assert neighbour == fleet.line("beta")["pid"]
    assert f"/{MEMORY_GB:g} GB" in fleet.run("status").stdout


def test_who_computes_too_much_is_bound_to_its_cores(fleet: LimitedFleet) -> None:
    """Two threads' worth of user code on the one core that 20 % rounds up to: told, and the line serves on."""
    before = fleet.line("beta")
    run_inside(fleet.login("beta", fleet.beta), burn_two_cores)
    busy = psutil.Process(before["pid"])
    eventually(lambda: limited(fleet, "beta").get("cpu"), limits.PERIOD * (limits.LOOKS + 6))
    spent, at = sum(busy.cpu_times()[:2]), time.monotonic()
    eventually(lambda: time.monotonic() - at > 5.0)
    share = 100 * (sum(busy.cpu_times()[:2]) - spent) / (time.monotonic() - at)
    assert 20.0 < share <= 110.0
    if len(os.sched_getaffinity(0)) > 1:
        assert 1 == len(os.sched_getaffinity(before["pid"]))
    assert told(fleet, "beta", "limit_reached", "cpu")
    assert before["pid"] == fleet.line("beta")["pid"]
    assert answers(fleet.beta)


# --- load ---


def test_the_load_figures_are_real(fleet: LimitedFleet) -> None:
    """In the status and at the dashboard; a machine that has just served a training is not at 0 %."""
    status = answers(fleet.alpha) or {}
    figures = status["current_load"]
    assert {"cpu_usage", "memory_usage", "disk_usage", "network_latency"} == set(figures)
    assert 0.0 < figures["cpu_usage"] <= 100.0
    assert abs(figures["memory_usage"] - psutil.virtual_memory().percent) < 20.0
    assert figures["disk_usage"] == pytest.approx(psutil.disk_usage(str(fleet.folder / ".fleet")).percent, abs=15.0)
    assert 0.0 < figures["network_latency"] < 5000.0
    assert 20.0 < status["memory_mb"] < 1000.0
