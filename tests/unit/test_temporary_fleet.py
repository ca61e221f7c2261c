"""``fleet_tools.temporary_fleet`` and what it stands on, without a process: what it writes, and how waiting ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet_tools import datasite, processes
from fleet_tools.ports import free_ports, listens
from fleet_tools.temporary_fleet import TemporaryFleet
from fleet_tools.waiting import Trouble, until
from supervisor.config import load


def test_what_it_writes_is_a_fleet(tmp_path: Path) -> None:
    """With the ports that it was given, its defaults, and each datasite's own keys."""
    fleet = TemporaryFleet(tmp_path, ("alpha", "beta"))
    fleet.defaults = {"heartbeat_interval": "7s"}
    fleet.keys = {"beta": {"priority": 3}}
    fleet.write()
    config = load(fleet.file, {})
    assert [(name, port, 7.0) for name, port in fleet.ports.items()] == [
        (spec.name, spec.port, spec.heartbeat_interval) for spec in config.datasites
    ]
    assert [0, 3] == [spec.priority for spec in config.datasites]
    assert config.dashboard is not None
    assert (fleet.dashboard_port, fleet.state_folder) == (config.dashboard.port, config.state)


def test_a_fleet_that_never_ran(tmp_path: Path) -> None:
    """There is no supervisor, no process and no answer; whoever needs one is told."""
    fleet = TemporaryFleet(tmp_path, ("alpha",))
    assert (None, None, [], None) == (fleet.picture(), fleet.whole(), fleet.left(), fleet.answering_pid("alpha"))
    with pytest.raises(Trouble, match=r"every datasite ready: timed out after 0\.01 s: no supervisor answers"):
        fleet.wait_whole(0.01)


def test_waiting_ends_with_the_first_true_answer_or_with_what_was_wanted() -> None:
    """The error says what did not come about, and within which time."""
    answers = iter(["", "", "here", "never"])
    assert "here" == until(lambda: next(answers), 5.0, "an answer", look=0.001)
    with pytest.raises(Trouble, match=r"an answer: timed out after 0\.01 s"):
        until(lambda: None, 0.01, "an answer", look=0.001)


def test_a_run_does_not_count_as_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever this process, or the shell that started it, works."""
    monkeypatch.chdir(tmp_path)
    assert [] == processes.inhabitants([tmp_path], named=True)
    assert (True, True) == (processes.alive(os.getpid()), str(os.getpid()) in processes.describe(os.getpid()))


def test_a_port_where_nobody_listens_answers_nothing() -> None:
    """Neither bytes nor a status."""
    (port,) = free_ports(1)
    assert (False, None, None) == (listens(port), datasite.get(port, "/"), datasite.status(port))
