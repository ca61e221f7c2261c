"""Whether this process sees a GPU, how much of its memory it may take, and that it can repeat itself. Never initialises
CUDA: a datasite that does not compute on its GPU must use none of its memory, and a process that forks jobs must not
have used CUDA."""

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
    """Asks in a child process if this process is to fork jobs. torch can ask NVML instead of CUDA; but not about a MIG
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
    except BaseException:  # noqa: BLE001 - this process ends here, whatever the error
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def limit_memory(limit_bytes: int) -> None:
    """Limit torch's allocator to ``limit_bytes`` of each visible GPU; 0: no limit.

    The limit is per process. A process forked before CUDA was used inherits it.
    """
    if limit_bytes > 0:
        # What torch's own manual_seed waits by; it has no public name.
        torch.cuda._lazy_call(lambda: _limit_each(limit_bytes))


def _limit_each(limit_bytes: int) -> None:
    for index in range(torch.cuda.device_count()):
        total = torch.cuda.get_device_properties(index).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit_bytes / total), index)


def let_repeat() -> None:
    """Let a training with a seed repeat itself on a GPU. cuBLAS reads this when a process first uses it; torch's
    deterministic algorithms, which the training itself asks for, need it."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
