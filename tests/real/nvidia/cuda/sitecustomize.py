"""Stands in for CUDA in a torch without it, in every Python that has this folder on its path.

It computes on the CPU and keeps the books as CUDA would: which GPUs of CUDA_STAND_IN_CARDS (see nvml.c) a process sees, that
a process that was forked from one that touched CUDA can not, that queued calls wait for the first use, how much memory
is taken, and of how much the allocator was told. CUDA_STAND_IN_FAULT=unlimited: it forgets what it was told.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import weakref
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

_CONTEXT = 400 * 1024**2


class Books:
    """Of one process: who touched CUDA, and what is held on the first GPU that it sees."""

    def __init__(self, cards: Path) -> None:
        self._cards = cards
        self._touched_by = 0
        self._held: dict[int, int] = {}
        self.limits: dict[int, float] = {}

    def visible(self) -> list[list[str]]:
        rows = [line.split() for line in self._cards.read_text().splitlines()]
        gpus = [row for row in rows if row[0].startswith("GPU-") and "m" not in row[4]]
        parts = [[row[1], row[2], row[3], "", "", *row[4:]] for row in rows if row[1].startswith("MIG-")]
        wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
        return gpus if wanted is None else [row for uuid in wanted.split(",") for row in gpus + parts if row[0] == uuid]

    def is_available(self, touch: Callable[[], None]) -> bool:
        """As torch does: it asks NVML if it is told to, but CUDA about a MIG instance."""
        by_nvml = os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK") == "1"
        if not by_nvml or os.environ.get("CUDA_VISIBLE_DEVICES", "").startswith("MIG-"):
            touch()
        return bool(self.visible())

    def touched(self) -> bool:
        return self._touched_by == os.getpid()

    def spoiled(self) -> bool:
        return self._touched_by not in (0, os.getpid())

    def touch(self, queued: list[Any]) -> None:
        if self.spoiled():
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess")
        if self.touched() or not self.visible():
            return
        self._touched_by = os.getpid()
        for call, _ in queued:
            call()
        self.hold(0, _CONTEXT)

    def hold(self, key: int, count: int) -> None:
        self._held[key] = count
        folder = self._cards.with_name("cards.d") / self.visible()[0][0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / str(os.getpid())).write_text(str(sum(self._held.values())))

    def limit(self, share: float, index: int = 0) -> None:
        if os.environ.get("CUDA_STAND_IN_FAULT") != "unlimited":
            self.limits[index] = share * self.memory(index)

    def memory(self, index: int) -> int:
        return int(self.visible()[index][1]) // 100 * 99


def dress(torch: Any) -> None:
    """Put the books in the place of CUDA."""
    books, cuda = Books(Path(os.environ["CUDA_STAND_IN_CARDS"])), torch.cuda
    touch: Any = lambda *_: books.touch(cuda._queued_calls)  # noqa: E731 - the same for many names

    def properties(index: int) -> Any:
        touch()
        row = books.visible()[index]
        return SimpleNamespace(
            uuid=row[0].removeprefix("GPU-"), name=" ".join(row[5:]), total_memory=books.memory(index)
        )

    torch.empty = _empty(torch, books, touch)
    torch.Tensor.to, torch.nn.Module.to = _to(torch.Tensor.to, touch), _to(torch.nn.Module.to, touch)
    torch.version.cuda = "13.0"
    cuda.init = cuda.synchronize = cuda.empty_cache = touch
    cuda.is_available = lambda: books.is_available(touch)
    cuda.device_count = lambda: len(books.visible())
    cuda.is_initialized, cuda._is_in_bad_fork = books.touched, books.spoiled
    cuda.get_device_properties, cuda.set_per_process_memory_fraction = properties, books.limit
    cuda.max_memory_allocated = lambda: 4096 if books.touched() else 0
    cuda.manual_seed_all = lambda seed: None


def _empty(torch: ModuleType, books: Books, touch: Any) -> Any:
    """torch.empty: on the GPU it gives what has a size and no memory."""
    plain = torch.empty

    def empty(*shape: Any, device: Any = None, **more: Any) -> Any:
        if not str(device).startswith("cuda"):
            return plain(*shape, device=device, **more)
        touch()
        made = plain(*shape, device="meta", **more)
        if made.numel() > books.limits.get(0, books.memory(0)):
            raise torch.OutOfMemoryError("CUDA out of memory")
        books.hold(id(made), made.numel())
        weakref.finalize(made, books.hold, id(made), 0)
        return made

    return empty


def _to(plain: Any, touch: Any) -> Any:
    """What goes to the GPU stays where it is."""

    def to(self: Any, *where: Any, **more: Any) -> Any:
        if where and str(where[0]).startswith("cuda"):
            touch()
            return self
        return plain(self, *where, **more)

    return to


class AfterTorch(MetaPathFinder):
    """Dresses torch as soon as it is imported."""

    def find_spec(self, name: str, *_: Any) -> Any:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec("torch")
        if spec is None or spec.loader is None:
            return None
        plain = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            plain(module)
            dress(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "CUDA_STAND_IN_CARDS" in os.environ:
    sys.meta_path.insert(0, AfterTorch())
