"""GPUs on a real fleet: real supervisor, workers and jobs, and the real nvidia-ml-py over a driver's library of our own.

The tests are one history: each begins as the one before it left the fleet. torch here need not have CUDA.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_tools.ports import free_ports
from tests.real.harness import Fleet, answers, eventually
from tests.real.nvidia import GIB, Driver, Gpu

ZERO, ONE, PART = "GPU-00000000-aaaa", "GPU-00000001-bbbb", "MIG-00000002-cccc"
SPLIT = Gpu("GPU-00000002-dddd", signs="m", parts={3: PART})
ALPHA, BETA = "gpu: auto", "gpu: {memory: 8GiB, exclusive: true}"
LATE = 90.0
"""Seconds within which a loss is noticed: the cards are looked at once a minute."""


class Plant(Fleet):
    """alpha takes what there is, beta wants a GPU of its own; gamma comes later."""

    def __init__(self, folder: Path, driver: Driver) -> None:
        self.driver = driver
        self.gamma = free_ports(1)[0]
        self.lines = {"alpha": ALPHA, "beta": BETA}
        self.asking: dict[str, Any] = {}
        super().__init__(folder)

    def write(self) -> None:
        ports = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        lines = "".join(f"  - {{name: {name}, port: {ports[name]}, {asked}}}\n" for name, asked in self.lines.items())
        head = f"version: 1\nname: test\ndashboard: {{mode: embedded, port: {self.dashboard}}}\n"
        self.file.write_text(f"{head}datasites:\n{lines}")

    def gpus(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.run("gpus", "--json").stdout)
        return told

    def assigned(self) -> dict[str, list[str]]:
        return {line["name"]: line["gpus"] for line in self.gpus()["lines"]}

    def pids(self) -> dict[str, int]:
        return {line["name"]: line["pid"] for line in self.status()["datasites"]}

    def sees(self, name: str, port: int) -> tuple[str, str]:
        """What CUDA would read in one of the line's jobs, and in its own process. The client is always the first one."""
        if name not in self.asking:
            import syft as sy

            client = self.login(name, port)
            wrapped = sy.syft_function(share_results_with_owners=True)(say_what_cuda_reads)
            client.code.request_code_execution(wrapped).approve(approve_nested=True)
            self.asking[name] = client.code.say_what_cuda_reads
        ask = self.asking[name]
        return str(_bare(ask(blocking=False).wait(timeout=90))), str(_bare(ask()))


def _bare(told: Any) -> Any:
    return told.get() if hasattr(told, "get") else told


def say_what_cuda_reads():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import ctypes

    import torch

    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_char_p
    read = [getenv(name).decode() for name in (b"CUDA_DEVICE_ORDER", b"CUDA_VISIBLE_DEVICES")]
    waiting = [call for call, _ in torch.cuda._queued_calls if call.__module__ == "datasite_worker.means.gpu"]
    return " ".join(read + sorted({f"{(call.__closure__ or ())[0].cell_contents} bytes" for call in waiting}))


def twice(uuid: str, memory: str = "") -> tuple[str, str]:
    """``memory``: what torch is to be told when it comes to use CUDA."""
    return (f"PCI_BUS_ID {uuid}{memory}",) * 2


CLAIMED = f" {8 * GIB} bytes"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """A fleet on a host with two GPUs and one in MIG mode; its shell has other ideas of what is to be seen."""
    driver = Driver(tmp_path_factory.mktemp("driver"), Gpu(ZERO), Gpu(ONE), SPLIT)
    with driver.installed(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "7")
        made = Plant(tmp_path_factory.mktemp("gpus"), driver)
        try:
            made.up()
            yield made
        finally:
            made.down()


def test_each_line_sees_its_own_gpu_only(plant: Plant) -> None:
    """By UUID and in PCI order, in the serving process and in a job, with the memory that was claimed; the exclusive
    request chose first."""
    assert [twice(ONE), twice(ZERO, CLAIMED)] == [plant.sees("alpha", plant.alpha), plant.sees("beta", plant.beta)]


def test_who_holds_what_and_why(plant: Plant) -> None:
    """`fleet gpus` shows cards and holders, `--json` the same; who computes there belongs to a line, or to nobody."""
    pids = plant.pids()
    plant.driver.computes(pids["beta"], ZERO, 2 * GIB)
    plant.driver.computes(os.getpid(), ZERO, GIB)
    assert [
        f"GPU 0  NVIDIA H100 80GB HBM3  76.0 GiB free of 80.0 GiB  {ZERO}",
        "  health: good",
        f"  beta (pid {pids['beta']})  1 GPU, 8.0 GiB, exclusive: least loaded",
        f"  another process: pid {os.getpid()}, 1.0 GiB",
        f"GPU 1  NVIDIA H100 80GB HBM3  79.0 GiB free of 80.0 GiB  {ONE}",
        "  health: good",
        f"  alpha (pid {pids['alpha']})  auto: least loaded",
        f"GPU 2  NVIDIA H100 80GB HBM3  79.0 GiB free of 80.0 GiB  {SPLIT.uuid}",
        "  health: in MIG mode: only its instances are used",
        f"  MIG of GPU 2  NVIDIA H100 80GB HBM3 MIG 3g.40gb  39.0 GiB free of 40.0 GiB  {PART}",
        "    health: good",
    ] == plant.run("gpus").stdout.splitlines()
    told = plant.gpus()
    assert {"alpha": [ONE], "beta": [ZERO]} == plant.assigned()
    zero = next(card for card in told["cards"] if card["uuid"] == ZERO)
    assert {pids["beta"]: "beta", os.getpid(): None} == {one["pid"]: one["line"] for one in zero["processes"]}


def test_a_killed_line_has_its_gpu_again(plant: Plant) -> None:
    """And sees it, as do its jobs, for a client that goes on with what it has."""
    before = plant.pids()["alpha"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: (told := answers(plant.alpha)) and told["pid"] != before)
    assert (twice(ONE), {"alpha": [ONE], "beta": [ZERO]}) == (plant.sees("alpha", plant.alpha), plant.assigned())


@pytest.mark.slow
def test_a_new_supervisor_leaves_everybody_where_he_is(plant: Plant) -> None:
    """After SIGKILL with the same processes; after `down` and `up` in new ones, although the lines stand otherwise."""
    before = plant.pids()
    os.kill(plant.status()["supervisor"]["pid"], signal.SIGKILL)
    eventually(lambda: plant.run("status").returncode == 3)
    plant.up()
    assert (before, {"alpha": [ONE], "beta": [ZERO]}) == (plant.pids(), plant.assigned())
    plant.down()
    plant.lines = {"beta": ALPHA, "alpha": BETA}  # placed anew it would be the other way round
    plant.write()
    plant.up()
    assert {"alpha": [ONE], "beta": [ZERO]} == plant.assigned()
    assert [twice(ONE, CLAIMED), twice(ZERO)] == [plant.sees("alpha", plant.alpha), plant.sees("beta", plant.beta)]


def test_a_reload_moves_nobody(plant: Plant) -> None:
    """A newcomer, here on a MIG instance, finds its place; one that has none is refused with line and cause."""
    before = plant.pids()
    plant.lines["gamma"] = f"gpu: {PART}"
    plant.write()
    assert 0 == plant.run("reload").returncode
    eventually(lambda: answers(plant.gamma))
    assert twice(PART) == plant.sees("gamma", plant.gamma)
    plant.lines["gamma"] = "gpu: 5"
    plant.write()
    refused = plant.run("reload")
    assert 2 == refused.returncode
    known = f"0 ({ZERO}), 1 ({ONE}), 2 ({SPLIT.uuid})"
    assert f"gamma: gpu: no GPU 5; known: {known}" in refused.stdout + refused.stderr
    assert {"alpha": [ONE], "beta": [ZERO], "gamma": [PART]} == plant.assigned()
    assert before == {name: pid for name, pid in plant.pids().items() if name != "gamma"}


def test_what_cannot_be_had_is_named_before_anything_starts(plant: Plant, tmp_path: Path) -> None:
    """`fleet up` on a host without so many GPUs: exit code 2, every line and its cause, and no process."""
    other = Plant(tmp_path, plant.driver)
    other.lines = {"alpha": "gpu: {count: 3}", "beta": "gpu: {memory: 90GiB}"}
    other.write()
    refused = other.run("up", "--detach")
    told = refused.stdout + refused.stderr
    assert (2, True) == (refused.returncode, "alpha: gpu: needs 3 GPUs; this host has 2 whole GPUs" in told)
    assert "beta: gpu: needs 90.0 GiB of memory; GPU 0 has 80.0 GiB" in told
    assert (None, None) == (answers(other.alpha), answers(other.beta))


@pytest.mark.slow
def test_a_driver_that_hangs_takes_no_gpu_from_anybody(plant: Plant) -> None:
    """The next supervisor has who runs where he runs; who was down, and asks for a GPU, starts on the one that it had."""
    plant.lines["gamma"] = f"gpu: {PART}"
    plant.write()
    assert 0 == plant.run("stop", "alpha").returncode
    before = plant.pids()
    with plant.driver.hanging():
        os.kill(plant.status()["supervisor"]["pid"], signal.SIGKILL)
        eventually(lambda: plant.run("status").returncode == 3)
        plant.up()
        assert before == plant.pids()
        assert 0 == plant.run("start", "alpha").returncode
    assert {"alpha": [ONE], "beta": [ZERO], "gamma": [PART]} == plant.assigned()
    assert [twice(ONE, CLAIMED), twice(ZERO)] == [plant.sees("alpha", plant.alpha), plant.sees("beta", plant.beta)]


@pytest.mark.slow
def test_a_gpu_that_is_lost(plant: Plant) -> None:
    """The line that takes what there is moves, and sees the other GPU; one that wants its own is left as it is. Both
    are told."""
    before = plant.pids()
    plant.driver.has(Gpu(ZERO, signs="f"), Gpu(ONE, signs="l"), SPLIT)
    eventually(lambda: plant.pids()["beta"] != before["beta"] and plant.line("beta")["ready"], LATE)
    assert {"alpha": [ONE], "beta": [PART], "gamma": [PART]} == plant.assigned()
    assert twice(PART) == plant.sees("beta", plant.beta)
    assert before["alpha"] == plant.pids()["alpha"]
    events = [json.loads(line) for line in plant.run("events", "--json").stdout.splitlines()]
    lost = {event["name"]: event["text"] for event in events if event["event"] == "gpu_lost"}
    failed = "bad memory that could not be replaced (row remapping failed)"
    assert f"its GPU is no longer usable ({ZERO}: {failed}); it now uses {PART}" == lost["beta"]
    assert lost["alpha"].startswith(f"its GPU is no longer usable ({ONE}: it is missing); no room for 1 exclusive GPU")
