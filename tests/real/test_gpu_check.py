"""``fleet doctor gpu`` from end to end: on hosts where it has nothing to check, and on one where it has everything.

The GPUs are stand-ins (see ``nvidia``): what is tested is the check, with real datasites and jobs, not CUDA.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.real.nvidia import Driver, Gpu

CHECK = [sys.executable, "-P", "-m", "supervisor", "doctor", "gpu", "--json"]
ZERO = Gpu("GPU-00000000-aaaa")
SPLIT = Gpu("GPU-00000001-bbbb", bus="0000DEAD:CA:00.0", signs="m", parts={2: "MIG-00000001-cccc"})


def check(*words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run([*CHECK, *words], capture_output=True, text=True, timeout=400, check=False)
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == told["exit"]
    return done.returncode, told


def test_a_host_without_a_gpu(tmp_path: Path) -> None:
    """Exit code 3 and what to do; nothing else is looked at."""
    with Driver(tmp_path).installed():
        code, told = check()
    assert (3, [], True) == (code, told["checks"], told["verdict"].startswith("There is no NVIDIA GPU here"))


def test_a_torch_that_cannot_use_it(tmp_path: Path) -> None:
    """Exit code 3, and which torch to install, or what CUDA says."""
    with Driver(tmp_path, ZERO).installed():
        code, told = check()
    plain = torch.__version__.partition("+")[0]
    expected = "cannot use the GPU: " if torch.version.cuda else f"`.venv/bin/pip install 'torch==={plain}'`"
    assert (3, [], True) == (code, told["checks"], expected in told["verdict"])


@pytest.mark.slow
def test_every_promise_is_checked(tmp_path: Path) -> None:
    """On a host with a GPU and one in MIG mode all hold, with one line on each; nothing is left of the run."""
    with Driver(tmp_path, ZERO, SPLIT).installed(cuda=True):
        code, told = check()
    assert (0, "13 of 13 promises hold") == (code, told["verdict"]), told
    seen = {one["check"]: one["seen"] for one in told["checks"]}
    assert "alpha ['MIG-00000001-cccc']" in seen["placement"]
    assert "beta ['GPU-00000000-aaaa']" in seen["placement"]
