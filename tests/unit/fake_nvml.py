"""A driver made of values behind the real nvidia-ml-py: its structures, its constants, its exceptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

GIB = 1024**3


@dataclass
class FakeGpu:
    """``refuses``: what asking one function of this GPU raises, by the function's name."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * GIB
    free: int = 79 * GIB
    bus: str = "0000DEAD:65:00.0"  # of no host whose kernel log a test might read
    processes: list[tuple[int, int | None]] = field(default_factory=list)
    ecc: int = 0
    remapped: tuple[int, int, int, int] = (0, 0, 0, 0)
    retiring: int = 0
    mig: bool = False
    parts: dict[int, FakeGpu] = field(default_factory=dict)  # by number, with gaps
    refuses: dict[str, int] = field(default_factory=dict)


@dataclass
class FakeDriver:
    """``failure``: what nvmlInit raises; ``refuses``: what a handle by index raises."""

    gpus: list[FakeGpu] = field(default_factory=list)
    failure: int = 0
    lost: dict[int, int] = field(default_factory=dict)
    open: int = 0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
        """Take the place of the functions that go to the driver."""
        of_gpu: dict[str, Callable[..., Any]] = {
            "nvmlDeviceGetUUID": lambda gpu: gpu.uuid,
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetMemoryInfo": _memory,
            "nvmlDeviceGetPciInfo": _pci,
            "nvmlDeviceGetMigMode": lambda gpu: [int(gpu.mig), int(gpu.mig)],
            "nvmlDeviceGetMaxMigDeviceCount": lambda gpu: 7,
            "nvmlDeviceGetMigDeviceHandleByIndex": _part,
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [_process(*one) for one in gpu.processes],
            "nvmlDeviceGetTotalEccErrors": lambda gpu, kind, counter: gpu.ecc if (kind, counter) == (1, 0) else 99,
            "nvmlDeviceGetRemappedRows": lambda gpu: gpu.remapped,
            "nvmlDeviceGetRetiredPagesPendingStatus": lambda gpu: gpu.retiring,
        }
        for name, answer in of_gpu.items():
            assert callable(getattr(pynvml, name)), name
            monkeypatch.setattr(pynvml, name, _asked(name, answer))
        for name in ("nvmlInit", "nvmlShutdown", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
            assert callable(getattr(pynvml, name)), name
            monkeypatch.setattr(pynvml, name, getattr(self, name))
        return self

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's own name
        if self.failure:
            raise pynvml.NVMLError(self.failure)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802 - NVML's own name
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's own name
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:  # noqa: N802 - NVML's own name
        if index in self.lost:
            raise pynvml.NVMLError(self.lost[index])
        return self.gpus[index]


def _asked(name: str, answer: Callable[..., Any]) -> Callable[..., Any]:
    def ask(gpu: FakeGpu, *arguments: Any) -> Any:
        if name in gpu.refuses:
            raise pynvml.NVMLError(gpu.refuses[name])
        return answer(gpu, *arguments)

    return ask


def _memory(gpu: FakeGpu) -> Any:
    memory = pynvml.c_nvmlMemory_t()
    memory.total, memory.free = gpu.total, gpu.free
    return memory


def _pci(gpu: FakeGpu) -> Any:
    info = pynvml.nvmlPciInfo_t()
    info.busId = gpu.bus.encode()
    return info


def _part(gpu: FakeGpu, number: int) -> FakeGpu:
    if number not in gpu.parts:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    return gpu.parts[number]


def _process(pid: int, memory: int | None) -> Any:
    return pynvml.nvmlFriendlyObject({"pid": pid, "usedGpuMemory": memory})
