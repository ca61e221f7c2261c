"""The threads that a line computes with, as a running function sees them: its share of the cores, or what was set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.real.harness import a_fleet, answers, eventually


def threads_here():  # type: ignore[no-untyped-def]  # noqa: ANN201 - PySyft ships its source
    import ctypes
    import os
    import pathlib

    import numpy  # noqa: F401 - loads OpenBLAS
    import torch

    maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    library = ctypes.CDLL(next(line.split()[-1] for line in maps if "numpy.libs/libopenblas" in line))
    openblas = next(
        getattr(library, name)()
        for name in ("openblas_get_num_threads64_", "scipy_openblas_get_num_threads64_", "openblas_get_num_threads")
        if hasattr(library, name)
    )
    return [torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"]), int(os.environ["MKL_NUM_THREADS"]), openblas]


def seen(client: Any) -> tuple[list[int], list[int]]:
    """By a blocking call, and by a job."""
    blocking = client.code.threads_here().get()
    return list(blocking), list(client.code.threads_here(blocking=False).wait(timeout=90).get())


@pytest.mark.slow
def test_a_function_computes_with_the_threads_of_its_line(tmp_path: Path) -> None:
    """PyTorch, OpenMP, MKL and NumPy alike, in blocking calls and in jobs: of two lines each has half of the cores,
    unless ``resources.threads`` says otherwise."""
    import syft as sy

    with a_fleet(tmp_path) as fleet:
        client = fleet.login("alpha", fleet.alpha)
        wrapped = sy.syft_function(share_results_with_owners=True)(threads_here)
        client.code.request_code_execution(wrapped).approve(approve_nested=True)
        half = max(1, (psutil.cpu_count() or 1) // 2)
        assert ([half] * 4, [half] * 4) == seen(client)
        before = fleet.line("alpha")["pid"]
        fleet.extra = ", resources: {threads: 3}"
        fleet.write()
        assert 0 == fleet.run("reload").returncode
        eventually(lambda: (told := answers(fleet.alpha)) and told["pid"] != before)
        assert ([3] * 4, [3] * 4) == seen(fleet.login("alpha", fleet.alpha))
