"""``fleet dashboard``: what it becomes, and what it refuses before it does."""

from __future__ import annotations

import os
import sys

import pytest
from typer.testing import CliRunner

from central.dashboard.__main__ import _options
from supervisor.faces.cli import app


class Became(Exception):
    """The process would have become another program."""


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    command: list[str] = []

    def execv(program: str, words: list[str]) -> None:
        command[:] = words
        raise Became(program)

    monkeypatch.setattr(os, "execv", execv)
    return command


def test_it_becomes_the_dashboard_with_the_arguments(became: list[str]) -> None:
    """Which that program understands, one by one."""
    words = ["--host", "0.0.0.0", "--port", "0", "--db", "x y.db", "--late-after", "5", "--offline-after", "6.5"]
    result = CliRunner().invoke(app, ["dashboard", *words])
    assert sys.executable == str(result.exception)
    assert [sys.executable, "-P", "-m", "central.dashboard"] == became[:4]
    told = _options(became[4:])
    assert ("0.0.0.0", 0, "x y.db", 5.0, 6.5) == (
        told.host,
        told.port,
        str(told.db),
        told.thresholds.late_after,
        told.thresholds.offline_after,
    )


def test_both_have_the_same_defaults(became: list[str]) -> None:
    """The command's and the program's own."""
    CliRunner().invoke(app, ["dashboard"])
    assert vars(_options([])) == vars(_options(became[4:]))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--port", "70000"], "not in the range"),
        (["--late-after", "100"], "at most --offline-after"),
        (["--late-after", "nan"], "at most --offline-after"),
        (["--offline-after", "inf"], "at most --offline-after"),
        (["--prot", "1"], "No such option"),
    ],
)
def test_wrong_use_starts_nothing(became: list[str], words: list[str], why: str) -> None:
    """It ends with 2 and says why."""
    result = CliRunner().invoke(app, ["dashboard", *words])
    assert (2, []) == (result.exit_code, became)
    assert why in result.output
