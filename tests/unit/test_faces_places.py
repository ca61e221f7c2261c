"""Commands find a running fleet although its fleet.yaml is gone, broken, or names another folder by now."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from supervisor.config import load
from supervisor.effects.places import Place, read_place, running, write_place
from supervisor.faces.cli import app
from tests.unit.fake_supervisor import listening, worker

FLEET_YAML = """\
version: 1
name: detroit
state_dir: st
dashboard: embedded
datasites:
  - {name: line_a, port: 8081}
"""
DAMAGE = {
    "a slip": FLEET_YAML + "- [\n",
    "no file": None,
    "another folder": FLEET_YAML.replace("dir: st", "dir: other"),
}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a path short enough for a socket's address, and a fleet.yaml whose supervisor has noted its place."""
    with tempfile.TemporaryDirectory(prefix="plant-") as folder:
        monkeypatch.chdir(folder)
        monkeypatch.delenv("FLEET_FILE", raising=False)
        (Path(folder) / "fleet.yaml").write_text(FLEET_YAML)
        config = load(Path(folder) / "fleet.yaml", {})
        config.state_dir.mkdir(0o700)
        write_place(config)
        yield Path(folder)


def fleet(*arguments: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(app, arguments, catch_exceptions=False)


def damage(plant: Path, how: str) -> None:
    if (text := DAMAGE[how]) is None:
        (plant / "fleet.yaml").unlink()
    else:
        (plant / "fleet.yaml").write_text(text)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("command", [("status", "--json"), ("stop", "line_a", "--no-wait"), ("down", "--no-wait")])
def test_a_file_that_changed_is_no_reason_to_lose_the_fleet(plant: Path, how: str, command: tuple[str, ...]) -> None:
    """Commands that look or stop go on, and a warning on standard error says what they went by."""
    with listening(plant / "st", worker("line_a")) as supervisor:
        damage(plant, how)
        result = fleet(*command)
        assert (0, True) == (result.exit_code, result.stderr.startswith("Warning: "))
        assert str(plant / "st") in result.stderr or "last started or reloaded" in result.stderr
        assert [("line_a", "stop")] * (command[0] == "stop") == supervisor.asked
        assert (command[0] == "down") == supervisor.went_down.is_set()


def test_without_a_supervisor_the_default_folder_still_tells(plant: Path) -> None:
    """`fleet logs` and `fleet events` look after a stop, too; a file that never was started stays an error."""
    (plant / "st").rename(plant / ".fleet")
    damage(plant, "a slip")
    looked = fleet("events")
    assert (0, True) == (looked.exit_code, "last started or reloaded" in looked.stderr)
    (plant / ".fleet" / "place.json").unlink()
    looked = fleet("events")
    assert (2, True) == (looked.exit_code, "fleet.yaml:" in looked.stderr)


def test_another_fleets_supervisor_is_not_taken(plant: Path) -> None:
    """A supervisor belongs to the file it was started with, whatever else listens on this machine."""
    with listening(plant / "st", worker("line_a")):
        assert None is running(plant / "elsewhere.yaml")
        assert plant / "st" == (running(plant / "fleet.yaml") or (None, None))[0]
        assert None is running(plant / "fleet.yaml", but=plant / "st")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 100_000,
        '{"file": 1}',
        '{"file": "/f", "fleet": "x", "log_dir": "/l", "ports": 3, "dashboard": true}',
    ],
)
def test_a_damaged_place_is_none(plant: Path, text: str) -> None:
    """What stands in the file is never trusted unread."""
    (plant / "st" / "place.json").write_text(text)
    assert None is read_place(plant / "st")


def test_the_place_says_what_the_file_said(plant: Path) -> None:
    """Names and folders; no secret of the file."""
    expected = Place(str((plant / "fleet.yaml").resolve()), "detroit", str(plant / "logs"), {"line_a": 8081}, True)
    assert expected == read_place(plant / "st")
    assert {"file", "fleet", "log_dir", "ports", "dashboard"} == set(
        json.loads((plant / "st" / "place.json").read_text())
    )
