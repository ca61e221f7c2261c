"""Whether this process sees a GPU, and how much of its memory it may take. Never touches CUDA itself: a line that does
not compute on its GPU holds none of it, and a process that is to fork jobs must not have initialised CUDA."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import torch

from datasite_worker.children import may_fork


def device() -> str:
    """``cuda:0`` when this process sees a GPU, else ``cpu``."""
    with_gpus = torch.version.cuda or torch.version.hip
    return "cuda:0" if with_gpus and _is_available() else "cpu"


def _is_available() -> bool:
    """By a child, where jobs are to be forked from here. torch can ask NVML instead of CUDA; but not about a MIG
    instance, and not while one GPU of the host is lost: then it initialises CUDA after all."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    if not may_fork():
        return torch.cuda.is_available()
    child = os.fork()
    if child == 0:
        _tell_by_ending()
    return os.waitpid(child, 0)[1] == 0


def _tell_by_ending() -> NoReturn:
    code = 1
    try:
        code = 0 if torch.cuda.is_available() else 1
    except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def limit_memory(limit_bytes: int) -> None:
    """No more than ``limit_bytes`` of each GPU that this process sees, by torch's allocator; 0: no limit.

    Each process has a limit of its own: one that is forked before CUDA was touched takes it along.
    """
    if limit_bytes > 0:
        # What torch's own manual_seed waits by; it has no public name.
        torch.cuda._lazy_call(lambda: _limit_each(limit_bytes))


def _limit_each(limit_bytes: int) -> None:
    for index in range(torch.cuda.device_count()):
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), index)
