"""`fleet gpus`: which cards there are, who holds them and why; one calm line where there are none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest
from click.testing import Result
from typer.testing import CliRunner

from fleet_common.signals import start_ticks
from supervisor.effects import assigner
from supervisor.effects.run_files import RunFile, RunFiles, boot_id
from supervisor.faces.cli import app
from supervisor.policy.placement import Placement
from tests.unit.fake_nvml import GIB, FakeDriver, FakeGpu

FLEET_YAML = """\
version: 1
dashboard: embedded
datasites:
  - {name: line_a, port: 8080}
  - {name: line_b, port: 8081, gpu: none}
"""


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML)
    (tmp_path / ".fleet").mkdir()
    return tmp_path


@pytest.fixture
def job() -> Iterator[int]:
    """The pid of a process below this one."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    yield child.pid
    child.communicate(b"\n")


def assigned(plant: Path, **gpus: tuple[str, ...]) -> None:
    """As a supervisor leaves it; line_a runs, and its process is this one."""
    whys = dict.fromkeys(gpus, "auto: least loaded") | {"line_b": "gpu: none"}
    assigner.Assigner(plant / ".fleet" / "gpus.json").use(Placement(dict(gpus), {}, whys))
    identity = (1, os.getpid(), start_ticks(os.getpid()) or 0, boot_id(), "f", 8080)
    RunFiles(plant / ".fleet" / "run").write(RunFile("line_a", *identity, gpus["line_a"]))


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["gpus", *arguments], catch_exceptions=False)


def test_without_a_gpu_it_is_one_calm_line(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no failure; nor is it one for a program."""
    FakeDriver(failure=pynvml.NVML_ERROR_LIBRARY_NOT_FOUND).install(monkeypatch)
    result = ask()
    assert (0, "no NVIDIA GPU on this host; every datasite computes on the CPU\n") == (result.exit_code, result.output)
    assert {"trouble": "", "cards": [], "lines": []} == json.loads(ask("--json").output)


def test_a_driver_that_cannot_be_asked_is_told(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it says, and exit code 1."""
    FakeDriver(failure=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH).install(monkeypatch)
    result = ask()
    assert (1, True) == (result.exit_code, result.output.startswith("NVML cannot be used: RM has detected"))


@pytest.mark.process
def test_who_holds_what_and_why(plant: Path, monkeypatch: pytest.MonkeyPatch, job: int) -> None:
    """A line's jobs count as the line; other programs are shown as such; a line on the CPU has its reason too."""
    busy = FakeGpu("GPU-a", free=70 * GIB, processes=[(job, 3 * GIB), (1, 6 * GIB), (2, None)], ecc=2)
    FakeDriver([busy]).install(monkeypatch)
    assigned(plant, line_a=("GPU-a",), line_b=(), removed=("GPU-a",))
    assert [
        "GPU 0  NVIDIA H100 80GB HBM3  70.0 GiB free of 80.0 GiB  GPU-a",
        "  health: uncorrected ECC errors since the driver was loaded: 2",
        f"  line_a (pid {os.getpid()})  auto: least loaded",
        "  another process: pid 1, 6.0 GiB",
        "  another process: pid 2",
        "CPU  line_b (not running)  gpu: none",
    ] == ask().output.splitlines()


def test_instances_bad_cards_and_cards_that_are_gone(plant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance stands below its GPU; a line whose card is gone is shown with what it had."""
    part = FakeGpu("MIG-1", "NVIDIA H100 MIG 3g.40gb", 40 * GIB, 39 * GIB)
    gpus = [FakeGpu("GPU-a", mig=True, parts={2: part}), FakeGpu("GPU-b", remapped=(0, 0, 0, 1)), FakeGpu("GPU-c")]
    FakeDriver(gpus).install(monkeypatch)
    assigned(plant, line_a=("GPU-x",), line_b=())
    assert [
        "GPU 0  NVIDIA H100 80GB HBM3  79.0 GiB free of 80.0 GiB  GPU-a",
        "  health: in MIG mode: only its instances are used",
        "  MIG of GPU 0  NVIDIA H100 MIG 3g.40gb  39.0 GiB free of 40.0 GiB  MIG-1",
        "    health: good",
        "GPU 1  NVIDIA H100 80GB HBM3  79.0 GiB free of 80.0 GiB  GPU-b",
        "  health: cannot be used: bad memory that could not be replaced (row remapping failed)",
        "GPU 2  NVIDIA H100 80GB HBM3  79.0 GiB free of 80.0 GiB  GPU-c",
        "  health: good",
        f"gone  line_a (pid {os.getpid()})  auto: least loaded; had GPU-x",
        "CPU  line_b (not running)  gpu: none",
    ] == ask().output.splitlines()


@pytest.mark.process
def test_json_has_it_all(plant: Path, monkeypatch: pytest.MonkeyPatch, job: int) -> None:
    """Numbers in bytes; the shape is a promise."""
    FakeDriver([FakeGpu("GPU-a", processes=[(job, 3 * GIB), (1, None)])]).install(monkeypatch)
    assigned(plant, line_a=("GPU-a",))
    told: dict[str, Any] = json.loads(ask("--json").output)
    (card,) = told["cards"]
    assert {
        "uuid": "GPU-a",
        "index": 0,
        "name": "NVIDIA H100 80GB HBM3",
        "memory_bytes": 80 * GIB,
        "free_bytes": 79 * GIB,
        "bus": "0000DEAD:65:00.0",
        "parent": "",
        "split": False,
        "usable": True,
        "trouble": "",
        "notes": [],
        "lines": ["line_a"],
        "processes": [
            {"pid": job, "memory_bytes": 3 * GIB, "line": "line_a"},
            {"pid": 1, "memory_bytes": None, "line": None},
        ],
    } == card
    assert [{"name": "line_a", "gpus": ["GPU-a"], "why": "auto: least loaded", "pid": os.getpid()}] == told["lines"]
