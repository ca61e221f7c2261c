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
from datasite_worker.contract import LaunchOrder
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
    assert (visible, memory) == (made.cuda_visible_devices, made.gpu_memory_bytes)


@pytest.mark.parametrize(("mode", "visible"), [("auto", None), ("none", "")])
def test_where_there_are_none_to_assign_only_none_means_none(mode: str, visible: str | None) -> None:
    """A host whose GPUs NVML does not know: ``auto`` is left to see them."""
    made = launch_order(fleet(LINE), replace(LINE, gpu=GpuRequest(mode)), 1, 2, None)
    assert isinstance(made, LaunchOrder)
    assert visible == made.cuda_visible_devices


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
    from datasite_worker import gpu

    cuda = FakeCuda(monkeypatch)
    gpu.limit_memory(asked)
    assert ([], False) == (cuda.limits, torch.cuda.is_initialized())
    cuda.initialise()
    assert expected == cuda.limits


LOOK = """
import json, os, sys
import datasite_worker.preload
import torch
targets = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if os.path.islink(f"/proc/self/fd/{fd}")]
print(json.dumps({
    "initialised": torch.cuda.is_initialized(),
    "bad fork": torch.cuda._is_in_bad_fork(),
    "devices": [target for target in targets if target.startswith("/dev/nvidia")],
    "limits": [str(call) for call, _ in torch.cuda._queued_calls if "datasite_worker" in str(call)],
}))
"""


@pytest.mark.timeout(180)
def test_the_preloaded_parent_never_touches_cuda(tmp_path: Path) -> None:
    """Else no worker that is forked of it could use a GPU, and all would hold memory of the first one."""
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert 0 == done.returncode, done.stderr
    expected = {"initialised": False, "bad fork": False, "devices": [], "limits": []}
    assert expected == json.loads(done.stdout.splitlines()[-1])
