"""The worker's small rooms: what trains, who is reaped, what crosses as live settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from datasite_worker.activity import Activity, shortened
from datasite_worker.children import Orphans
from fleet_common.contract import LiveSettings, StatusDocument, parse_status
from fleet_common.layout import WorkerFolder
from fleet_common.listening import own_address, reachable_name
from fleet_common.state_files import LARGEST
from fleet_common.untrusted import Unfit, decoded

pytestmark = pytest.mark.process


def test_what_runs_is_told_while_it_runs() -> None:
    """Twice when it runs twice; each change is told; a completion has its moment, a failure none."""
    told: list[dict[str, Any]] = []
    activity = Activity(lambda: told.append(activity.told()))
    with activity.running("train"), activity.running("train") as completed:
        assert ["train", "train"] == activity.told()["active_experiments"]
        completed()
    assert [1, 2, 1, 0] == [len(one["active_experiments"]) for one in told]
    moment = activity.told()["last_training_completion"]
    with pytest.raises(ZeroDivisionError), activity.running("broken"):
        1 / 0  # noqa: B018 - user code that fails
    assert {"active_experiments": [], "last_training_completion": moment} == activity.told()


def test_no_name_blows_up_a_heartbeat() -> None:
    """The centre chooses names; long ones are cut, and so is a long list."""
    assert 100 == len(shortened("x" * 100_000))
    activity = Activity(lambda: None)
    entered = [activity.running("x" * 1000) for _ in range(100)]
    for one in entered:
        one.__enter__()
    assert 32 == len(activity.told()["active_experiments"])


def zombie(code: str = "") -> int:
    """A dead child that no object knows."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", code], os.environ)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def test_a_dead_child_that_nobody_waits_for_goes_in_the_second_round() -> None:
    """One round is left to whoever forked it."""
    pid = zombie()
    orphans = Orphans()
    assert pid not in orphans.reap()
    assert pid in orphans.reap()
    assert not psutil.pid_exists(pid)


def test_no_exit_status_is_stolen() -> None:
    """subprocess learns how its child ended, however late it asks."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(7)"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    orphans = Orphans()
    for _ in range(3):
        assert child.pid not in orphans.reap()
    assert 7 == child.wait()


def test_a_child_that_its_starter_dropped_goes_too() -> None:
    """``subprocess.Popen(…)`` in user code, and nobody keeps it: subprocess would look at it when it starts another."""
    pid = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE).pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    orphans = Orphans()
    assert [False, True] == [pid in orphans.reap() for _ in range(2)]
    assert not psutil.pid_exists(pid)


def test_a_living_child_is_left_alone() -> None:
    """However many rounds it lives."""
    pid = os.posix_spawn(sys.executable, [sys.executable, "-S", "-c", "input()"], os.environ)
    orphans = Orphans()
    try:
        assert [set(), set()] == [orphans.reap() & {pid} for _ in range(2)]
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_live_settings_cross_as_they_are(tmp_path: Path) -> None:
    """Written by one side, read by the other, in the datasite's own folder; keys of a newer side are passed over."""
    settings = LiveSettings(3, 0.5, {"security_level": "high"})
    assert tmp_path / "settings.json" == WorkerFolder(tmp_path).settings
    assert settings == decoded(settings.to_json(), LiveSettings, LARGEST)
    newer = {**json.loads(settings.to_json()), "colour": "green"}
    assert settings == decoded(json.dumps(newer).encode(), LiveSettings, LARGEST)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"null", b"{}", b'{"generation": 1, "heartbeat_interval": 0, "capabilities": {}}',
     b'{"generation": 1, "heartbeat_interval": "soon", "capabilities": {}}', b"\xff"],
)  # fmt: skip
def test_what_are_no_settings_is_refused(raw: bytes) -> None:
    """As a value, whatever is wrong with it."""
    assert isinstance(decoded(raw, LiveSettings, LARGEST), Unfit)


def test_a_status_of_an_older_worker_is_read() -> None:
    """Fields that it does not know have their defaults."""
    told = parse_status(
        b'{"factory_name": "a", "factory_hostname": "h", "factory_port": 1, "device": "", "status": "x"}'
    )
    assert StatusDocument("a", "h", 1, "", "x", active_experiments=[], interrupted_jobs=[]) == told


def test_nobody_is_told_to_connect_to_every_interface() -> None:
    """A site that listens everywhere gives its host's name; it reaches itself on loopback."""
    assert [os.uname().nodename] * 2 == [reachable_name(one) for one in ("0.0.0.0", "::")]
    assert "line.plant" == reachable_name("line.plant")
    assert ["127.0.0.1", "127.0.0.1", "::1", "10.0.0.5"] == [
        own_address(one) for one in ("localhost", "0.0.0.0", "::", "10.0.0.5")
    ]
