"""The number of threads that a process computes with."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from datasite_worker.means import threads

pytestmark = pytest.mark.process

GETTERS = [name.replace("_set_", "_get_") for name in threads._SETTERS]


def tell_after(number: int) -> tuple[int, int]:
    """torch's threads and OpenBLAS's, of a child that was told ``number``."""
    child = os.fork()
    if child == 0:
        threads.use(number)
        np.ones((64, 64)) @ np.ones((64, 64))
        os._exit(torch.get_num_threads() * 16 + openblas_threads())
    told = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return told // 16, told % 16


def openblas_threads() -> int:
    """As NumPy's own OpenBLAS says."""
    line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if "numpy.libs/libopenblas" in line)
    library = ctypes.CDLL(line.split(maxsplit=5)[-1])
    name = next(name for name in GETTERS if hasattr(library, name))
    return int(getattr(library, name)())


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="where there is one core, there is one thread anyway")
def test_torch_and_numpy_keep_to_the_number() -> None:
    """Both were loaded before, for all cores; a process forked from here computes with as many as it is told."""
    assert [(1, 1), (2, 2)] == [tell_after(number) for number in (1, 2)]


def test_what_is_loaded_or_started_later_finds_it_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenMP's and MKL's own variables."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    before = torch.get_num_threads()
    try:
        threads.use(1)
        assert ["1", "1"] == [os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    finally:
        threads.use(before)
