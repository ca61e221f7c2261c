"""``fleet jobs``: what the program at the centre's end is handed, and the mistakes that are told before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from supervisor.faces.cli import app
from supervisor.faces.commands import jobs as command


@pytest.fixture
def handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The plans for which this process would have become the program, in a folder with a fleet of two datasites."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    sites = "".join(f"  - {{name: {name}, port: {port}}}\n" for name, port in (("a", 18101), ("b", 18102)))
    (tmp_path / "fleet.yaml").write_text(f"version: 1\nname: test\ndashboard: embedded\ndatasites:\n{sites}")
    for name in "ab":
        kept = tmp_path / ".fleet" / "datasites" / name
        kept.mkdir(parents=True)
        login = {"email": f"{name}@example.com", "name": "Admin", "password": f"secret of {name}", "generated": True}
        (kept / "admin.json").write_text(json.dumps(login))
    plans: list[dict[str, Any]] = []
    monkeypatch.setattr(command, "_become", lambda plan: plans.append(json.loads(plan)))
    return plans


def jobs(*words: str) -> Any:
    return CliRunner().invoke(app, ["jobs", *words], catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "names", "cancel", "as_json"),
    [
        ([], ["a", "b"], "", False),
        (["b", "--json"], ["b"], "", True),
        (["cancel", "5f0c"], ["a", "b"], "5f0c", False),
    ],
)
def test_each_datasite_is_asked_as_its_owner(
    handed: list[dict[str, Any]], words: list[str], names: list[str], cancel: str, as_json: bool
) -> None:
    """Those that were named, or all; a job to cancel is looked for at all of them."""
    assert 0 == jobs(*words).exit_code
    (plan,) = handed
    assert (names, cancel, as_json) == ([line["name"] for line in plan["lines"]], plan["cancel"], plan["as_json"])
    assert [f"secret of {name}" for name in names] == [line["password"] for line in plan["lines"]]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [(["c"], 4, "no datasite named 'c'"), (["cancel"], 2, "name one job"), (["cancel", "1", "2"], 2, "name one job")],
)
def test_a_mistake_is_told_before_anything_is_asked(
    handed: list[dict[str, Any]], words: list[str], code: int, told: str
) -> None:
    """With the exit codes of every command."""
    result = jobs(*words)
    assert (code, []) == (result.exit_code, handed)
    assert told in result.output
