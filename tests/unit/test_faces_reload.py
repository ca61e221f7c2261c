"""`fleet reload`: the plan in words, taken up or only shown; a broken file changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from supervisor.faces import reload
from supervisor.faces.cli import app
from supervisor.policy import reconcile
from supervisor.spec import DatasiteSpec
from tests.unit import fakes
from tests.unit.fake_supervisor import at_rest, fleet, listening, worker

FLEET_YAML = "version: 1\nname: detroit\ndashboard: embedded\ndatasites:\n  - {name: line_a, port: 8080}\n"
PLAN: dict[str, Any] = {
    "add": ["line_n"],
    "remove": ["line_r"],
    "restart": {"line_a": ["port", "verbose"]},
    "live": {"line_b": ["heartbeat_interval"]},
    "unchanged": ["line_c", "dashboard"],
    "fleet": ["startup"],
    "refused": [],
}
WORDS = """\
  add      line_n
  remove   line_r
  restart  line_a: port, verbose changed
  live     line_b: heartbeat_interval, no restart
  fleet    startup, no restart
  unchanged: line_c, dashboard"""
BEFORE = fleet(worker("line_a"), worker("line_b"), worker("line_c"), worker("line_r"))
AFTER = fleet(worker("line_a", generation=2, pid=5001), worker("line_b"), worker("line_c"), worker("line_n", pid=5002))


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner(mix_stderr=False).invoke(app, list(arguments), catch_exceptions=False)


def test_the_plan_in_words() -> None:
    """A line for each worker that something happens to, with the keys that are to blame and no value."""
    assert WORDS == reload.in_words(PLAN)


def test_the_words_fit_the_supervisors_own_plan() -> None:
    """What policy makes is what the command shows: one document on both sides."""
    alpha = DatasiteSpec("alpha", 8080)
    made = reconcile.plan(fakes.fleet(alpha), fakes.fleet(DatasiteSpec("alpha", 8081), DatasiteSpec("beta", 8082)))
    document = json.loads(json.dumps(made.to_dict()))
    assert "  add      beta\n  restart  alpha: port changed" == reload.in_words(document)
    assert (False, PLAN.keys()) == (reload.is_empty(document), document.keys())


def test_a_dry_run_shows_and_changes_nothing(plant: Path) -> None:
    """Exit code 0, and the supervisor was asked for a plan only."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan = PLAN
        result = run("reload", "--dry-run")
        assert ["dry run"] == fake.reloads
    assert (0, f"would change:\n{WORDS}\n") == (result.exit_code, result.output)


def test_a_reload_waits_until_all_of_it_came_about(plant: Path) -> None:
    """Added ones ready, removed ones gone, restarted ones ready under a new generation."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan, fake.after_reload = PLAN, [AFTER]
        result = run("reload")
        assert ["reload"] == fake.reloads
    assert 0 == result.exit_code
    assert f"changing:\n{WORDS}\n" == result.stdout
    told = sorted(" ".join(line.split()[:2]) for line in result.stderr.splitlines())
    assert ["line_a ready", "line_n ready", "line_r stopped"] == told
    assert "line_r stopped and removed in 0." in result.stderr


def test_what_does_not_come_up_is_exit_code_1(plant: Path) -> None:
    """With the reason and the next step; the plan was taken up all the same."""
    broken = at_rest("line_n", state="quarantined", wanted="up", reason="port 8083 is taken")
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan, fake.after_reload = {**PLAN, "restart": {}, "remove": []}, [fleet(*BEFORE.datasites, broken)]
        result = run("reload")
    assert 1 == result.exit_code
    assert "line_n not ready: quarantined: port 8083 is taken\n  next step: fleet logs line_n" in result.stderr


def test_a_line_that_never_appears_is_told_after_the_timeout(plant: Path) -> None:
    """Nobody waits for ever."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan = {**PLAN, "restart": {}, "remove": []}
        result = run("reload", "--timeout", "0.2")
    assert 1 == result.exit_code
    assert "line_n not found after 0." in result.stderr


def test_a_stopped_line_whose_keys_changed_is_not_waited_for(plant: Path) -> None:
    """It is down, stays so, and that is no failure."""
    with listening(plant / ".fleet", at_rest("line_a"), worker("line_b")) as fake:
        fake.plan = {**PLAN, "add": [], "remove": [], "unchanged": []}
        assert 0 == run("reload").exit_code


def test_no_wait_returns_with_the_plan(plant: Path) -> None:
    """Taken up, and nobody looks what comes of it."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan = PLAN
        result = run("reload", "--no-wait")
        assert ["reload"] == fake.reloads
    assert (0, f"changing:\n{WORDS}\n") == (result.exit_code, result.output)


@pytest.mark.parametrize("dry_run", [True, False])
def test_json_is_the_plan_and_nothing_else_on_standard_output(plant: Path, dry_run: bool) -> None:
    """For programs, taken up or not; what is said to people goes to standard error."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan, fake.after_reload = PLAN, [AFTER]
        result = run("reload", "--json", *(["--dry-run"] if dry_run else []))
    assert (0, PLAN) == (result.exit_code, json.loads(result.stdout))


def test_nothing_to_do_is_said(plant: Path) -> None:
    """The fleet is what the file asks for."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.plan = {**fake.plan, "unchanged": ["line_a"]}
        result = run("reload")
    assert (0, "nothing to do: the fleet matches fleet.yaml\n") == (result.exit_code, result.output)


@pytest.mark.parametrize("option", ["--dry-run", "--json", "--no-wait"])
def test_a_broken_file_changes_nothing_and_says_where(plant: Path, option: str) -> None:
    """Exit code 2, the places, and that the fleet goes on as it was."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.refusal = (422, "fleet.yaml:5:26: datasites[0].port: expected a port")
        result = run("reload", option)
    assert 2 == result.exit_code
    assert "fleet.yaml:5:26: datasites[0].port: expected a port" in result.stderr
    assert "nothing was changed; the fleet keeps running as before" in result.stderr


def test_what_a_running_fleet_cannot_take_up_is_refused(plant: Path) -> None:
    """Other folders need `fleet down`, then `fleet up`."""
    with listening(plant / ".fleet", *BEFORE.datasites) as fake:
        fake.refusal = (409, "log_dir cannot change while the fleet runs; use fleet down, then fleet up")
        result = run("reload")
    assert (1, True) == (result.exit_code, "fleet down, then fleet up" in result.stderr)


def test_without_a_supervisor_there_is_nothing_to_reload(plant: Path) -> None:
    """3, as everywhere."""
    assert 3 == run("reload").exit_code
    assert 3 == run("reload", "--dry-run").exit_code
