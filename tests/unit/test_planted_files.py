"""Python files that lie in the current folder are not imported, whatever ``fleet`` is asked for: they may be anybody's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from fleet_tools.ports import free_ports
from supervisor import daemon
from supervisor.faces import up
from tests.unit.fakes import fleet

pytestmark = pytest.mark.process

NAMES = (
    "random",
    "secrets",
    "socket",
    "json",
    "logging",
    "signal",
    "yaml",
    "psutil",
    "typer",
    "supervisor",
    "fleet_common",
)
PLANTED = "import pathlib; pathlib.Path(__file__).with_name('imported').write_text(__name__); raise SystemExit(99)\n"


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with a fleet.yaml and files that would be imported instead of Python's own and ours."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(PLANTED)
    (tmp_path / "fleet.yaml").write_text(
        f"version: 1\nname: test\ndatasites:\n  - {{name: alpha, port: {free_ports(1)[0]}}}\n"
    )
    (tmp_path / "broken.yaml").write_text("version: 1\nname: 3\n")
    return tmp_path


COMMANDS: list[tuple[str, ...]] = [
    ("--version",), ("validate",), ("schema",), ("init", "new.yaml"), ("status",), ("status", "--json"), ("start", "alpha"),
    ("stop", "alpha"), ("restart", "alpha"), ("reload",), ("down",), ("logs", "alpha"), ("events",), ("credentials", "alpha"),
    ("gpus",), ("up", "broken.yaml"), ("up", "broken.yaml", "--detach"),
]  # fmt: skip


def test_no_command_imports_what_lies_in_the_current_folder(planted: Path) -> None:
    """Not even the standard library's names."""
    door = str(Path(sys.executable).with_name("fleet"))
    for words in COMMANDS:
        done = subprocess.run([door, *words], cwd=planted, capture_output=True, text=True, timeout=60, check=False)
        assert ([], "") == ([path.name for path in planted.glob("imported")], _traceback(done.stderr)), words
        assert 99 != done.returncode, (words, done.stderr)


def test_neither_does_the_supervisor_in_the_background(planted: Path) -> None:
    """Nor in the foreground, where ``fleet up`` becomes the same program."""
    command = [*up._command(planted / "broken.yaml")]
    done = subprocess.run(command, cwd=planted, capture_output=True, text=True, timeout=60, check=False)
    assert (2, False) == (done.returncode, (planted / "imported").exists()), done.stderr


def test_the_supervisor_leaves_the_folder_it_was_started_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder may go away, and every launch needs to know where it is."""

    class Enough(Exception):
        pass

    def enough(_folder: Path) -> None:
        raise Enough

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(daemon, "RunFiles", enough)
    with pytest.raises(Enough):
        daemon._run(fleet(), (), {}, Mock())
    assert Path("/") == Path.cwd()


def _traceback(said: str) -> str:
    return said if "Traceback" in said else ""
