"""A worker sees its own GPUs only, takes no more of them than asked for, and is born of a parent without CUDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from datasite_worker import entry
from fleet_common.contract import LaunchOrder
from supervisor.effects.launcher import PRELOAD
from supervisor.policy.launching import launch_order
from supervisor.spec import DatasiteSpec, GpuRequest
from tests.unit.fakes import fleet

torch = pytest.importorskip("torch")
GIB = 1024**3
LINE = DatasiteSpec("a", 8080, gpu=GpuRequest("some", (), 1, 8 * GIB))


def order(spec: DatasiteSpec, *gpus: str) -> LaunchOrder:
    made = launch_order(fleet(spec), spec, 1, 2, gpus)
    assert isinstance(made, LaunchOrder)
    return made


ORDERED = [((), "", 0), (("GPU-a",), "GPU-a", 8 * GIB), (("GPU-a", "GPU-b"), "GPU-a,GPU-b", 8 * GIB)]


@pytest.mark.parametrize(("gpus", "visible", "memory"), ORDERED)
def test_a_launch_order_names_the_gpus(gpus: tuple[str, ...], visible: str, memory: int) -> None:
    """By UUID; on the CPU none, and then no limit either."""
    made = order(LINE, *gpus)
    assert (visible, memory) == (made.compute.cuda_visible_devices, made.compute.gpu_memory_bytes)


@pytest.mark.parametrize(("mode", "visible"), [("auto", None), ("none", "")])
def test_where_there_are_none_to_assign_only_none_means_none(mode: str, visible: str | None) -> None:
    """A host whose GPUs NVML does not know: ``auto`` is left to see them."""
    made = launch_order(fleet(LINE), replace(LINE, gpu=GpuRequest(mode)), 1, 2, None)
    assert isinstance(made, LaunchOrder)
    assert visible == made.compute.cuda_visible_devices


@pytest.mark.parametrize("visible", ["", "GPU-a,GPU-b"])
def test_the_environment_shows_its_gpus_only(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    """In PCI order, and against anything that the supervisor's environment or the line's own says."""
    monkeypatch.setattr(os, "environ", {"CUDA_VISIBLE_DEVICES": "0,1,2", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"})
    entry._set_environment(order(LINE, *filter(None, visible.split(","))))
    told = os.environ["CUDA_VISIBLE_DEVICES"], os.environ["CUDA_DEVICE_ORDER"]
    assert (visible, "PCI_BUS_ID") == told


class FakeCuda:
    """Two GPUs of 16 and 80 GiB in place of this host's, and the queue of what waits for CUDA."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.limits: list[tuple[float, int]] = []
        self.queue: list[Any] = []
        monkeypatch.setattr(torch.cuda, "_queued_calls", self.queue)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        sizes = [SimpleNamespace(total_memory=size * GIB) for size in (16, 80)]
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: sizes[index])
        set_limit = lambda share, index: self.limits.append((share, index))  # noqa: E731 - torch's own signature
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", set_limit)

    def initialise(self) -> None:
        """As torch does when CUDA is first used."""
        for call, _ in self.queue:
            call()


LIMITS = [(8 * GIB, [(0.5, 0), (0.1, 1)]), (20 * GIB, [(1.0, 0), (0.25, 1)]), (0, [])]


@pytest.mark.parametrize(("asked", "expected"), LIMITS)
def test_a_line_takes_no_more_memory_than_it_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: int, expected: list[tuple[float, int]]
) -> None:
    """A share of each GPU, set when CUDA is first used and not before; never more than all of it."""
    from datasite_worker.means import gpu

    cuda = FakeCuda(monkeypatch)
    gpu.limit_memory(asked)
    assert ([], False) == (cuda.limits, torch.cuda.is_initialized())
    cuda.initialise()
    assert expected == cuda.limits


class PoisonousCuda:
    """A build of torch with CUDA that has to touch it to say whether there is any, as it has to on a MIG instance and
    beside a lost GPU; who touches it can no longer fork processes that use it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
        self.touched = False
        self.answer = answer
        monkeypatch.setattr(torch.version, "cuda", "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", self.is_available)
        monkeypatch.setattr("datasite_worker.means.gpu.may_fork", lambda: True)  # other tests may have left threads

    def is_available(self) -> bool:
        self.touched = True
        if isinstance(self.answer, Exception):
            raise self.answer
        return bool(self.answer)


@pytest.mark.process
@pytest.mark.parametrize(
    ("answer", "expected"), [(True, "cuda:0"), (False, "cpu"), (RuntimeError("a broken driver"), "cpu")]
)
def test_looking_for_a_device_does_not_touch_cuda(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], answer: Any, expected: str
) -> None:
    """Else no job of the line could use its GPU: each is forked from this process. A driver that fails is no GPU."""
    from datasite_worker.means import gpu

    cuda = PoisonousCuda(monkeypatch, answer)
    assert (expected, False) == (gpu.device(), cuda.touched)
    assert isinstance(answer, Exception) == ("a broken driver" in capfd.readouterr().err)


def test_where_jobs_are_not_forked_from_here_cuda_may_be_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook has threads, which do not go well with a fork; its jobs come of a fresh interpreter."""
    from datasite_worker.means import gpu

    cuda = PoisonousCuda(monkeypatch, True)
    monkeypatch.setattr("datasite_worker.means.gpu.may_fork", lambda: False)
    assert ("cuda:0", True) == (gpu.device(), cuda.touched)


def test_a_torch_without_cuda_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is the ordinary case, and costs nothing."""
    from datasite_worker.means import gpu

    cuda = PoisonousCuda(monkeypatch, True)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    assert ("cpu", False) == (gpu.device(), cuda.touched)


LOOK = """
import importlib, json, os, sys
import torch
touched = []
def spied(name):
    real = getattr(torch.cuda, name)
    def ask(*arguments, **more):
        touched.append(name)
        return real(*arguments, **more)
    setattr(torch.cuda, name, ask)
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties",
             "get_device_capability", "get_device_name", "mem_get_info", "synchronize"):
    spied(name)
for module in sys.argv[1].split():
    importlib.import_module(module)
exec(sys.argv[2])
child = os.fork()
if child == 0:
    os._exit(torch.cuda._is_in_bad_fork())
_, status = os.waitpid(child, 0)
paths = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
print(json.dumps({
    "touched": touched,
    "a child could not use it": status != 0,
    "initialised": torch.cuda.is_initialized(),
    "devices": [os.readlink(path) for path in paths if os.path.islink(path) and "/dev/nvidia" in os.readlink(path)],
    "limits": [str(call) for call, _ in torch.cuda._queued_calls if "datasite_worker" in str(call)],
}))
"""
CLEAN = {
    "touched": [],
    "a child could not use it": False,
    "initialised": False,
    "devices": [],
    "limits": [],
}


def look(folder: Path, afterwards: str) -> dict[str, Any]:
    """What becomes of a process that imports what the forkserver does, and then does that."""
    command = [sys.executable, "-c", LOOK, " ".join(PRELOAD), afterwards]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert 0 == done.returncode, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.process
@pytest.mark.timeout(180)
def test_the_preloaded_parent_never_touches_cuda(tmp_path: Path) -> None:
    """Else no worker that is forked of it could use a GPU, and all would hold memory of the first one. Whatever torch
    is built for: a build with CUDA tells by a forked child, one without by what would have been asked."""
    assert CLEAN == look(tmp_path, "")


@pytest.mark.process
@pytest.mark.timeout(180)
def test_a_parent_that_only_asks_for_gpus_would_be_noticed(tmp_path: Path) -> None:
    """The test above can fail: `is_available` is the innocent way to spoil a process for forking."""
    told = look(tmp_path, "torch.cuda.is_available()")
    assert ("is_available", bool(torch.version.cuda)) == (told["touched"][0], told["a child could not use it"])


def test_a_job_can_repeat_itself_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """cuBLAS is told before it is used, unless the owner told it something else."""
    from datasite_worker.means import gpu

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")  # so that it is put back
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    gpu.let_repeat()
    assert ":4096:8" == os.environ["CUBLAS_WORKSPACE_CONFIG"]
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    gpu.let_repeat()
    assert ":16:8" == os.environ["CUBLAS_WORKSPACE_CONFIG"]
