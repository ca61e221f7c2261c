"""A short run of ``scripts/chaos``: always the same faults, drawn from a fixed seed, on a real fleet."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
KINDS = ("worker-kill", "supervisor-kill", "port-theft", "reload-broken", "dashboard-garbage", "job-kill")


@pytest.mark.timeout(600)  # all six: a minute and a half on an idle machine, of which imports of PySyft are the most
@pytest.mark.slow
def test_a_short_siege_is_clean(tmp_path: Path) -> None:
    """Every acknowledged write is there, every datasite ready, every restart told, and nothing is left behind."""
    summary = tmp_path / "summary.json"
    words = ["--faults", str(len(KINDS)), "--seed", "11", "--datasites", "2", "--kinds", ",".join(KINDS)]
    command = [sys.executable, "-P", "-m", "fleet_tools.chaos", *words, "--json", str(summary)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, cwd=tmp_path)
    assert 0 == done.returncode, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(summary.read_text())
    assert (True, 11, "") == (told["clean"], told["seed"], told["folder"])
    assert set(KINDS) == {one["strike"]["kind"] for one in told["faults"]}
    assert (12, True) == (len(told["checks"]), all(check["holds"] for check in told["checks"]))
    assert "seed 11" in done.stdout.splitlines()[0]
