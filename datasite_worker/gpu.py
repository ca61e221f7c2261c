"""How much memory of a GPU this process may take. Sets it without touching CUDA: a line that never computes on its GPU
holds none of it, and a process that is to fork must not have initialised CUDA."""

from __future__ import annotations

import torch


def limit_memory(limit_bytes: int) -> None:
    """No more than ``limit_bytes`` of each GPU that this process sees, by torch's allocator; 0: no limit.

    Each process has a limit of its own: one that is forked before CUDA was touched takes it along.
    """
    if limit_bytes > 0:
        # What torch's own manual_seed waits by; it has no public name.
        torch.cuda._lazy_call(lambda: _limit_each(limit_bytes))  # type: ignore[no-untyped-call]


def _limit_each(limit_bytes: int) -> None:
    for index in range(torch.cuda.device_count()):
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), index)
