"""Sets how many threads this process computes with: torch, OpenMP and MKL, and NumPy's OpenBLAS.

Each library reads its environment once, when it is loaded. Workers and jobs are forked after that, so the libraries
are called directly. OpenBLAS offers only its C function.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

import torch

_SETTERS = (
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
)
"""Its name depends on how the library was built."""


def in_use() -> int:
    """How many threads torch uses now."""
    return torch.get_num_threads()


def use(threads: int) -> None:
    """Set the number for this process. Programs that it executes and libraries that it loads later read the
    environment."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    for set_threads in openblas():
        set_threads(threads)


@functools.cache
def openblas() -> tuple[Callable[[int], object], ...]:
    """The functions that set the threads of each loaded OpenBLAS."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    paths = {line.split(maxsplit=5)[-1] for line in lines if "openblas" in line}
    found = (_setter(ctypes.CDLL(path)) for path in sorted(paths) if os.path.exists(path))  # noqa: PTH110 - a path of maps
    return tuple(one for one in found if one is not None)


def _setter(library: ctypes.CDLL) -> Callable[[int], object] | None:
    return next((getattr(library, name) for name in _SETTERS if hasattr(library, name)), None)
