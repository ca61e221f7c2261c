"""The command line: what is typed, what is printed, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from supervisor import config as fleet_config
from supervisor.faces.cli import app
from supervisor.faces.location import locate
from supervisor.faces.status import absent
from supervisor.snapshot import WorkerSnapshot
from tests.unit.fake_supervisor import FakeSupervisor, at_rest, listening, worker

FLEET_YAML = """\
version: 1
name: detroit
dashboard: embedded
datasites:
  - {name: line_a, port: 8080}
  - {name: line_b, port: 8081}
"""
COMMANDS = ["up", "down", "status", "start", "stop", "restart", "logs", "credentials"]
COMMANDS += ["events", "reload", "validate", "init", "schema", "version"]


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the working directory; no FLEET_FILE, no colours forced."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path


@pytest.fixture
def fleet_yaml(plant: Path) -> Path:
    path = plant / "fleet.yaml"
    path.write_text(FLEET_YAML)
    return path


def fleet(*arguments: object, **more: Any) -> Result:
    """Run the command; an exception that is not an exit is a failure of the test."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False, **more)


@contextmanager
def running(plant: Path, *datasites: WorkerSnapshot, **more: Any) -> Iterator[FakeSupervisor]:
    """A supervisor for the plant's fleet: line_a and line_b, ready."""
    with listening(plant / ".fleet", *(datasites or (worker("line_a"), worker("line_b"))), **more) as fake:
        yield fake


# --- what is typed ---


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    """`fleet COMMAND -h` has a one-line summary and, where there are arguments, an example."""
    result = fleet(command, "-h")
    assert 0 == result.exit_code
    assert f"Usage: fleet {command}" in result.output
    assert command == "version" or f"    fleet {command}" in result.output


def every_command(command: click.Command, *words: str) -> Iterator[tuple[str, ...]]:
    """The words of each command and group below ``command``, and its own."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from every_command(below, *words, name)


@pytest.mark.parametrize("words", list(every_command(get_command(app))), ids=" ".join)
def test_help_fits_a_terminal_of_80_columns(words: tuple[str, ...]) -> None:
    """No line of any help text is longer, and no text is cut."""
    usage, *lines = fleet(*words, "--help", terminal_width=80).output.splitlines()
    assert usage.startswith(f"Usage: {' '.join(['fleet', *words])} ")
    assert [] == [line for line in lines if len(line) > 80 or line.endswith("...")]


def test_help_tells_the_exit_codes() -> None:
    """The exit codes are in the help, as they are used."""
    output = fleet("--help").output
    for line in ("3    no supervisor is running", "5    another supervisor is running", "130  interrupted (Ctrl-C)"):
        assert line in output
    assert [] == [command for command in COMMANDS if f"\n  {command} " not in output]


@pytest.mark.parametrize(
    "arguments", [("nope",), ("status", "--nope"), ("logs", "a", "-n", "-1"), ("up", "--timeout", "x")]
)
def test_wrong_usage_ends_with_2(plant: Path, arguments: tuple[str, ...]) -> None:
    """What cannot be understood ends with 2."""
    assert 2 == fleet(*arguments).exit_code


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "-f", "{}"),
        ("status", "--file", "{}"),
        ("-f", "{}", "status"),
        ("--file", "{}", "status"),
        ("status", "{}"),
        ("-f", "{}", "status", "--file", "{}"),
        ("-f", "{}", "start", "line_a"),
        ("start", "line_a", "-f", "{}"),
        ("-f", "{}", "down"),
        ("down", "{}"),
    ],
)
def test_the_file_is_named_before_or_after_the_command(plant: Path, arguments: tuple[str, ...]) -> None:
    """-f, --file and the positional file find the same fleet, for every command and on either side of it."""
    other = plant / "elsewhere" / "plant.yaml"
    other.parent.mkdir()
    other.write_text(FLEET_YAML)
    result = fleet(*(argument.format(other) for argument in arguments))
    assert 3 == result.exit_code
    assert str(other.parent / ".fleet") in result.output


def test_the_default_file_then_the_variable(fleet_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./fleet.yaml comes first; where there is none, $FLEET_FILE."""
    monkeypatch.setenv("FLEET_FILE", str(fleet_yaml.parent / "deep" / "other.yaml"))
    assert str(fleet_yaml) in fleet("status").output
    (fleet_yaml.parent / "deep").mkdir()
    fleet_yaml.rename(fleet_yaml.parent / "deep" / "other.yaml")
    assert "other.yaml" in fleet("status").output


def test_two_different_files_are_wrong_usage(fleet_yaml: Path) -> None:
    """Two files named at once are never silently decided between."""
    result = fleet("-f", "a.yaml", "status", "-f", "b.yaml")
    assert 2 == result.exit_code
    assert "a.yaml and b.yaml" in result.output


def test_no_file_at_all(plant: Path) -> None:
    """Without a fleet.yaml the next step is named."""
    result = fleet("status")
    assert 2 == result.exit_code
    assert "fleet init" in result.output


# --- status ---


def test_status_of_a_fleet_that_is_well(fleet_yaml: Path) -> None:
    """Plain lines off a terminal, and exit code 0."""
    with running(fleet_yaml.parent):
        result = fleet("status")
    assert 0 == result.exit_code
    assert "line_b  ready" in result.output
    assert not set("─●\x1b") & set(result.output)


def test_status_tells_by_its_exit_code_that_something_is_not_ready(fleet_yaml: Path) -> None:
    """1 when one that is wanted up is not ready; one that was stopped on purpose is no failure."""
    with running(fleet_yaml.parent, worker("line_a"), at_rest("line_b")) as fake:
        assert 0 == fleet("status").exit_code
        fake.change("line_a", state="backoff", ready=False)
        result = fleet("status")
    assert 1 == result.exit_code
    assert "line_a backoff: " in result.output


def test_status_json_is_the_snapshot(fleet_yaml: Path) -> None:
    """--json is the supervisor's own document, whole."""
    with running(fleet_yaml.parent) as fake:
        assert fake.picture.to_dict() == json.loads(fleet("status", "--json").stdout)


def test_status_without_a_supervisor(fleet_yaml: Path) -> None:
    """3, with the names, and what to do."""
    result = fleet("status")
    assert 3 == result.exit_code
    assert "fleet detroit: not running" in result.output
    assert "datasites: line_a :8080, line_b :8081" in result.output
    assert f"next step: fleet up {fleet_yaml}" in result.output


def test_status_json_without_a_supervisor_has_the_same_shape(fleet_yaml: Path) -> None:
    """A script that reads --json finds every key, whether or not a supervisor runs."""
    result = fleet("status", "--json")
    assert 3 == result.exit_code
    found = json.loads(result.stdout)
    with running(fleet_yaml.parent) as fake:
        real = fake.picture.to_dict()
    assert real.keys() == found.keys()
    assert real["datasites"][0].keys() == found["datasites"][0].keys()
    assert [("line_a", False), ("line_b", False)] == [(site["name"], site["ready"]) for site in found["datasites"]]


def test_a_broken_fleet_yaml_does_not_hide_a_running_fleet(fleet_yaml: Path) -> None:
    """An edit that broke the file, or a secret missing here, takes neither status nor stop from the operator."""
    fleet_yaml.write_text(FLEET_YAML.replace("8081", "80810") + "oops: ${env:NOT_SET_HERE}\n")
    with running(fleet_yaml.parent) as fake:
        fake.after_ask["line_a", "stop"] = [{"state": "down", "wanted": "down", "ready": False, "pid": None}]
        assert 0 == fleet("status").exit_code
        assert 0 == fleet("stop", "line_a").exit_code
    assert 2 == fleet("validate").exit_code


def test_a_supervisor_that_does_not_answer_is_named(fleet_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hanging supervisor is an error with a next step, in bounded time."""
    monkeypatch.setattr("supervisor.faces.client.ControlClient.__init__.__kwdefaults__", {"answer_timeout": 0.1})
    with running(fleet_yaml.parent) as fake:
        fake.hangs = True
        result = fleet("status")
    assert 1 == result.exit_code
    assert "does not answer within 0.1 s" in result.output
    assert "next step: fleet logs fleet" in result.output


# --- start, stop, restart ---


def test_restart_waits_until_it_came_about(fleet_yaml: Path) -> None:
    """One line a datasite, with the time it took and the new pid."""
    with running(fleet_yaml.parent) as fake:
        fake.after_ask["line_b", "restart"] = [
            {"state": "stopping", "ready": False},
            {"state": "starting", "pid": 5001, "generation": 2},
            {"state": "ready", "ready": True},
        ]
        result = fleet("restart", "line_b")
    assert 0 == result.exit_code
    assert result.output.startswith("line_b ready in 0.")
    assert result.output.endswith(" s (pid 5001)\n")


def test_restart_all_asks_every_datasite(fleet_yaml: Path) -> None:
    """--all means the datasites; the embedded dashboard goes on."""
    with running(fleet_yaml.parent, dashboard=worker("dashboard")) as fake:
        for name in ("line_a", "line_b"):
            fake.after_ask[name, "restart"] = [{"generation": 2}]
        assert 0 == fleet("restart", "--all").exit_code
        assert [("line_a", "restart"), ("line_b", "restart")] == fake.asked


def test_a_start_that_fails_says_why(fleet_yaml: Path) -> None:
    """The reason, the next step, and exit code 1; the others are still told of."""
    with running(fleet_yaml.parent, at_rest("line_a"), at_rest("line_b")) as fake:
        fake.after_ask["line_a", "start"] = [
            {"state": "quarantined", "wanted": "up", "generation": 2, "reason": "port 8080 is taken by nginx"}
        ]
        fake.after_ask["line_b", "start"] = [
            {"state": "ready", "ready": True, "wanted": "up", "generation": 2, "pid": 77}
        ]
        result = fleet("start", "line_a", "line_b")
    assert 1 == result.exit_code
    assert "line_a not ready: quarantined: port 8080 is taken by nginx" in result.output
    assert "next step: fleet logs line_a" in result.output
    assert "line_b ready in " in result.output


def test_a_request_that_takes_too_long(fleet_yaml: Path) -> None:
    """After --timeout the state it is in is told, and the exit code is 1."""
    with running(fleet_yaml.parent) as fake:
        fake.after_ask["line_a", "stop"] = [
            {"state": "stopping", "wanted": "down", "ready": False, "reason": "stopped"}
        ]
        result = fleet("stop", "line_a", "--timeout", "0.1")
    assert 1 == result.exit_code
    assert "line_a not stopped: still stopping after 0." in result.output


def test_no_wait_returns_at_once(fleet_yaml: Path) -> None:
    """--no-wait asks, and does not look what comes of it."""
    with running(fleet_yaml.parent) as fake:
        result = fleet("stop", "line_a", "--no-wait")
        assert [("line_a", "stop")] == fake.asked
    assert (0, "line_a: stop requested\n") == (result.exit_code, result.output)


def test_nothing_to_do_is_said(fleet_yaml: Path) -> None:
    """Starting what is ready is no failure."""
    with running(fleet_yaml.parent):
        result = fleet("start", "line_a")
    assert (0, "line_a is already ready (pid 4711)\n") == (result.exit_code, result.output)


def test_an_unknown_name_stops_everything(fleet_yaml: Path) -> None:
    """4, the near names, all names, and nothing was asked of the others."""
    with running(fleet_yaml.parent) as fake:
        result = fleet("restart", "line_a", "lin_b")
        assert [] == fake.asked
    assert 4 == result.exit_code
    assert "did you mean: line_b" in result.output
    assert "known: line_a, line_b" in result.output


@pytest.mark.parametrize("command", ["start", "stop", "restart"])
def test_a_name_is_needed(fleet_yaml: Path, command: str) -> None:
    """Without a name nothing is asked; the names are listed."""
    result = fleet(command)
    assert 2 == result.exit_code
    assert "line_a, line_b, dashboard" in result.output


def test_requests_of_a_fleet_that_goes_down(fleet_yaml: Path) -> None:
    """The supervisor's refusal is passed on."""
    with running(fleet_yaml.parent, stopping=True):
        result = fleet("start", "line_a")
    assert 1 == result.exit_code
    assert "the fleet is stopping" in result.output


@pytest.mark.parametrize("command", [("start", "line_a"), ("restart", "--all"), ("down",), ("status", "--json")])
def test_without_a_supervisor_commands_end_with_3(fleet_yaml: Path, command: tuple[str, ...]) -> None:
    """3 is no supervisor, whatever was asked."""
    assert 3 == fleet(*command).exit_code


# --- down ---


@pytest.mark.process
def test_down_waits_for_the_supervisor_to_end(fleet_yaml: Path) -> None:
    """`fleet down` returns when the process is gone, so that `fleet up` may follow."""
    stand_in = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    with running(fleet_yaml.parent, supervisor_pid=stand_in.pid) as fake:
        assert 1 == fleet("down", "--timeout", "0.1").exit_code
        assert fake.went_down.is_set()
        assert stand_in.stdin is not None
        stand_in.stdin.close()
        result = fleet("down")
    assert 0 == result.exit_code
    assert result.output.startswith("fleet detroit is down (")
    assert 0 == stand_in.wait(5)


# --- logs ---


def test_logs_show_the_last_lines(fleet_yaml: Path) -> None:
    """-n lines, of the log or of the raw output, with the supervisor down."""
    logs = fleet_yaml.parent / "logs"
    logs.mkdir()
    (logs / "line_a.log").write_text("".join(f"line {at} é\n" for at in range(100)), encoding="utf-8")
    (logs / "line_a.out").write_text("raw\n")
    (logs / "fleet.log").write_text("supervisor\n")
    assert "line 98 é\nline 99 é\n" == fleet("logs", "line_a", "-n", "2").output
    assert "raw\n" == fleet("logs", "line_a", "--output").output
    assert "supervisor\n" == fleet("logs", "fleet").output
    assert "" == fleet("logs", "fleet", "-n", "0").output


def test_logs_of_nobody(fleet_yaml: Path) -> None:
    """Unknown names, names that are paths, and logs that are not there yet are told apart."""
    assert 4 == fleet("logs", "line_c").exit_code
    assert 4 == fleet("logs", "../fleet").exit_code
    result = fleet("logs", "line_a")
    assert 1 == result.exit_code
    assert "there is no " in result.output


# --- credentials ---


def write_login(plant: Path, **more: Any) -> None:
    folder = plant / ".fleet" / "datasites" / "line_a"
    folder.mkdir(parents=True)
    login = {"email": "admin@plant.example", "name": "Admin", "password": "s3cret-drawn", "generated": True, **more}
    (folder / "admin.json").write_text(json.dumps(login))


def test_credentials_are_shown_with_their_origin(fleet_yaml: Path) -> None:
    """E-mail and password as stored, and that they may have been changed since."""
    write_login(fleet_yaml.parent)
    output = fleet("credentials", "line_a").output
    assert "email     admin@plant.example\npassword  s3cret-drawn\n" in output
    assert "generated at the first start; it may have been changed in PySyft since" in output


def test_credentials_as_json(fleet_yaml: Path) -> None:
    """For scripts: every field by name."""
    write_login(fleet_yaml.parent, generated=False)
    expected: dict[str, Any] = {"datasite": "line_a", "email": "admin@plant.example", "name": "Admin"}
    expected |= {"password": "s3cret-drawn", "generated": False}
    assert expected == json.loads(fleet("credentials", "line_a", "--json").output)


def test_credentials_before_the_first_start(fleet_yaml: Path) -> None:
    """A datasite that never ran has none; a name that is none is told apart from that."""
    result = fleet("credentials", "line_b")
    assert 1 == result.exit_code
    assert "has no login yet: it was never started" in result.output
    assert 4 == fleet("credentials", "dashboard").exit_code


def test_credentials_that_are_damaged(fleet_yaml: Path) -> None:
    """A file that is not what it should be is an error in words."""
    write_login(fleet_yaml.parent)
    (fleet_yaml.parent / ".fleet" / "datasites" / "line_a" / "admin.json").write_text("[]")
    result = fleet("credentials", "line_a")
    assert 1 == result.exit_code
    assert "admin.json cannot be used: it is not a mapping" in result.output


# --- check ---


def test_check_names_what_is_missing(fleet_yaml: Path) -> None:
    """As text and as JSON, with exit code 1; a name that is none, or no name, is told apart from that."""
    write_login(fleet_yaml.parent)
    result = fleet("check", "line_a")
    assert (1, True) == (result.exit_code, "identity.json is missing; restore it from a backup" in result.output)
    told = json.loads(fleet("check", "line_a", "--json").output)
    assert ("line_a", 1) == (told["name"], len(told["problems"]))
    refused = fleet("check", "line_a", "--salvage", str(fleet_yaml.parent / "saved.db"))
    assert (1, True) == (refused.exit_code, "could be saved" in refused.output)
    assert "line_b has no folder" in fleet("check", "line_b").output
    assert (4, 2) == (fleet("check", "dashboard").exit_code, fleet("check").exit_code)


# --- files ---


def test_init_writes_a_valid_file_and_never_overwrites(plant: Path) -> None:
    """The starter validates as it is; a second init leaves it alone unless forced."""
    assert 0 == fleet("init").exit_code
    assert 0 == fleet("validate").exit_code
    (plant / "fleet.yaml").write_text("mine")
    assert 1 == fleet("init").exit_code
    assert "mine" == (plant / "fleet.yaml").read_text()
    assert 0 == fleet("init", "--force").exit_code
    assert fleet_config.starter() == (plant / "fleet.yaml").read_text()


def test_init_into_a_folder(plant: Path) -> None:
    """A folder gets a fleet.yaml; one that is not there is an error in words."""
    (plant / "site").mkdir()
    assert 0 == fleet("init", "site").exit_code
    assert (plant / "site" / "fleet.yaml").exists()
    assert 1 == fleet("init", "nowhere/fleet.yaml").exit_code


def test_validate_names_every_problem(fleet_yaml: Path) -> None:
    """All problems at once, with line and column, and exit code 2; --json says the same to programs."""
    fleet_yaml.write_text(FLEET_YAML.replace("8080", "80800").replace("8081", "many"))
    result = fleet("validate")
    assert 2 == result.exit_code
    assert "2 problems:" in result.output
    assert "fleet.yaml:5:26: datasites[0].port: " in result.output
    found = json.loads(fleet("validate", "--json").stdout)
    assert (False, [5, 6]) == (found["valid"], [problem["line"] for problem in found["problems"]])


def test_validate_says_what_it_found(fleet_yaml: Path) -> None:
    """A valid file is confirmed in one line."""
    result = fleet("validate", fleet_yaml)
    assert (0, f"{fleet_yaml}: valid: fleet detroit, 2 datasites\n") == (result.exit_code, result.output)


def test_schema_is_json() -> None:
    """The schema is printed whole, for editors."""
    assert "datasites" in json.loads(fleet("schema").output)["properties"]


def test_version() -> None:
    """The command and the option say the same."""
    assert fleet("version").output == fleet("--version").output
    assert "PySyft 0.9.5" in fleet("version").output


# --- one meaning of fleet.yaml ---


@pytest.mark.parametrize(
    "head",
    [
        "",
        "state_dir: st\nlog_dir: deep/er/logs\n",
        "state_dir: /srv/fleet/state\nlog_dir: ../logs\n",
        "state_dir: ${env:PLANT_ROOT}/state\n",
        "name: plant\nshutdown_grace: 5\n",
    ],
)
def test_the_quick_look_and_the_full_load_agree(plant: Path, head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a fleet lives is the same for commands that only look and for the supervisor that runs it."""
    monkeypatch.setenv("PLANT_ROOT", "/srv/plant")
    body = FLEET_YAML if "name:" not in head else FLEET_YAML.replace("name: detroit\n", "")
    (plant / "fleet.yaml").write_text(body.replace("version: 1\n", f"version: 1\n{head}"))
    looked, loaded = locate(Path("fleet.yaml"), os.environ), fleet_config.load(Path("fleet.yaml"), os.environ)
    assert (loaded.path, loaded.name) == (looked.path, looked.fleet)
    assert (loaded.state_dir, loaded.log_dir) == (looked.state_dir, looked.log_dir)
    assert [spec.name for spec in loaded.datasites] == list(looked.ports)
    assert {spec.name for spec in loaded.workers} == set(looked.names)


def test_the_defaults_of_the_quick_look_are_those_of_the_full_load(plant: Path) -> None:
    """The same for a file that leaves everything out."""
    text = "version: 1\ndatasites: [{name: a, port: 8080, dashboard_url: 'http://c.example:5000'}]\n"
    (plant / "fleet.yaml").write_text(text)
    looked, loaded = locate(Path("fleet.yaml"), {}), fleet_config.load(Path("fleet.yaml"), {})
    assert (loaded.name, loaded.state_dir, loaded.log_dir) == (looked.fleet, looked.state_dir, looked.log_dir)
    assert "unknown" == absent(looked)["datasites"][0]["state"]
