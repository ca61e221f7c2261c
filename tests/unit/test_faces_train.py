"""``fleet train``: what is typed, what the program that trains is handed, and the mistakes that are told before it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fleet_tools.ports import free_ports
from supervisor.faces.cli import app
from supervisor.faces.commands import train as command

pytestmark = pytest.mark.process


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The plans for which this process would have become the training."""
    plans: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "_become", lambda plan: plans.append(json.loads(plan)))
    return plans


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a fleet of two lines that have their logins; nobody listens."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    first, second = free_ports(2)
    (tmp_path / "model.py").write_text("")
    (tmp_path / "fleet.yaml").write_text(
        "version: 1\nname: test\ndashboard: embedded\ndatasites:\n"
        f"  - {{name: a, port: {first}, hostname: 127.0.0.1}}\n  - {{name: b, port: {second}, hostname: 0.0.0.0}}\n"
    )
    for name in "ab":
        kept = tmp_path / ".fleet" / "datasites" / name
        kept.mkdir(parents=True)
        login = {"email": f"{name}@example.com", "name": "Admin", "password": f"secret of {name}", "generated": True}
        (kept / "admin.json").write_text(json.dumps(login))
    return tmp_path


@pytest.fixture
def up(plant: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with lines that listen."""
    monkeypatch.setattr(command, "_listens", lambda _: True)
    return plant


def train(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)], catch_exceptions=False)


def test_help_has_an_example() -> None:
    """`fleet train -h` says what is written, and how it is called."""
    output = train("-h").output
    assert "Usage: fleet train [OPTIONS] MODEL.py" in output
    assert "    fleet train model.py --rounds 20" in output


def test_every_line_of_the_fleet_takes_part_with_its_own_login(up: Path, handed: list[dict[str, Any]]) -> None:
    """Address and login of each line, in the file's order; a wildcard is reached on loopback."""
    assert 0 == train("model.py", "--rounds", 3).exit_code
    (plan,) = handed
    assert [
        ("a", "http://127.0.0.1", "a@example.com", "secret of a"),
        ("b", "http://127.0.0.1", "b@example.com", "secret of b"),
    ] == [(line["name"], line["url"], line["email"], line["password"]) for line in plan["lines"]]
    assert (3, str(up / "model.py"), str(up / "model-training")) == (plan["rounds"], plan["model"], plan["output"])


def test_only_what_was_said_goes_before_the_model_files_config(up: Path, handed: list[dict[str, Any]]) -> None:
    """Options that were left out are left to CONFIG."""
    train("model.py", "--epochs", 2, "--algorithm", "fedprox", "--mu", "0.5", "--quorum", "60%", "--datasite", "b")
    assert ({"epochs": 2}, "fedprox", 0.5, "60%", ["b"]) == (
        handed[0]["config"], handed[0]["algorithm"], handed[0]["mu"], handed[0]["quorum"], [line["name"] for line in handed[0]["lines"]]
    )  # fmt: skip


def test_the_old_spelling_of_datasite_is_still_taken(up: Path, handed: list[dict[str, Any]]) -> None:
    """Scripts that say --line go on working, and help does not show it."""
    train("model.py", "--line", "b")
    assert ["b"] == [line["name"] for line in handed[0]["lines"]]
    assert "--line" not in train("--help").output


def test_what_is_handed_on_is_a_plan(up: Path, handed: list[dict[str, Any]]) -> None:
    """The two ends of the pipe agree on its shape."""
    from central.federated.plan import parse

    train("model.py", "--rounds", 5, "--data", "vibration", "--resume", "--json")
    plan = parse(json.dumps(handed[0]).encode())
    assert None is plan.grace
    train("model.py", "--grace", 3)
    assert 3.0 == parse(json.dumps(handed[1]).encode()).grace
    assert (5, "vibration", True, True, "a") == (plan.rounds, plan.data, plan.resume, plan.as_json, plan.lines[0].name)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["nowhere.py"], 2, "nowhere.py"),
        (["model.py", "--rounds", "0"], 2, "0"),
        (["model.py", "--mu", "0.1"], 2, "--mu needs --algorithm fedprox"),
        (["model.py", "--algorithm", "fedsgd"], 2, "fedsgd"),
        (["model.py", "--datasite", "c"], 4, "no datasite named 'c'"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(
    up: Path, handed: list[dict[str, Any]], words: list[str], code: int, told: str
) -> None:
    """With the exit codes of every command."""
    result = train(*words)
    assert code == result.exit_code
    assert told in result.output
    assert [] == handed


def test_a_fleet_that_is_down_is_told_as_such(plant: Path, handed: list[dict[str, Any]]) -> None:
    """Nobody waits for the first round's deadline."""
    result = train("model.py")
    assert (3, []) == (result.exit_code, handed)
    assert "no datasite answers" in result.output
    assert "next step: fleet up" in result.output


def test_one_line_that_listens_is_enough_to_begin(plant: Path, handed: list[dict[str, Any]]) -> None:
    """The others may be on their way back; the quorum decides."""
    import yaml

    port = yaml.safe_load((plant / "fleet.yaml").read_text())["datasites"][0]["port"]
    with socket.create_server(("127.0.0.1", port)):
        assert 0 == train("model.py").exit_code
    assert 1 == len(handed)


def test_a_line_without_a_login_was_never_started(up: Path, handed: list[dict[str, Any]]) -> None:
    """It is named, with the next step."""
    (up / ".fleet" / "datasites" / "b" / "admin.json").unlink()
    result = train("model.py")
    assert 1 == result.exit_code
    assert "b has no login yet: it was never started" in result.output


def test_the_plan_reaches_the_program_on_standard_input_alone(tmp_path: Path) -> None:
    """Nothing of it in arguments or environment; the process id stays, so signals and the exit code need no go-between."""
    program = (
        "from supervisor.faces.commands import train\n"
        "train._PROGRAM = ('-c', 'import os, sys; sys.stdout.write(f\"{os.getpid()} {sys.argv} {sys.stdin.read()}\"); sys.exit(7)')\n"
        "train._become(b'x' * 300000)\n"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    )
    output, _ = started.communicate(timeout=60)
    assert 7 == started.returncode
    assert f"{started.pid} ['-c'] " + "x" * 300_000 == output


def test_the_command_line_loads_neither_torch_nor_pysyft() -> None:
    """`fleet status` pays nothing for `fleet train`."""
    program = "import sys, supervisor.faces.commands.train; print({'torch', 'syft', 'central'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert "set()" == done.stdout.strip()
