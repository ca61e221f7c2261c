"""A fleet that was started in a folder that is not to be trusted, and that goes away."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.harness import Fleet, eventually

PLANTED = "import pathlib; pathlib.Path(__file__).with_name('imported').write_text(__name__)\nraise SystemExit(99)\n"
NAMES = (
    "random",
    "secrets",
    "socket",
    "json",
    "logging",
    "torch",
    "syft",
    "datasite_worker",
    "central",
    "multiprocessing",
)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[Fleet, Path]]:
    """A fleet whose `fleet up` runs in the foreground, in a folder with files that it must not import."""
    home, there = tmp_path / "fleet", tmp_path / "there"
    for folder in (home, there):
        folder.mkdir()
    fleet = Fleet(home)
    for name in NAMES:
        (there / f"{name}.py").write_text(PLANTED)
    door = str(Path(sys.executable).with_name("fleet"))
    words = [door, "-f", str(fleet.file), "up", "--quiet"]
    process = subprocess.Popen(words, cwd=there, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        yield fleet, there
    finally:
        fleet.end()
        process.wait(60)


@pytest.mark.slow
def test_nothing_there_is_imported_and_it_may_go_away(started: tuple[Fleet, Path]) -> None:
    """Neither the supervisor nor the forkserver imports from there; both datasites come up, and come up again when the
    folder is gone."""
    fleet, there = started

    def ready() -> bool:
        if fleet.run("status").returncode != 0:
            return False
        return all(one["ready"] for one in fleet.status()["datasites"])

    eventually(ready)
    assert [] == list(there.glob("imported"))
    pid = fleet.status()["supervisor"]["pid"]
    assert Path("/") == Path(f"/proc/{pid}/cwd").readlink()
    shutil.rmtree(there)
    fleet.must("restart", "alpha")
    assert ready()
