"""A central that is slow, broken, gone or of another kind costs a datasite nothing, and all of it is to be seen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from fleet_common.contract import LiveSettings
from fleet_common.layout import WorkerFolder
from tests.real.harness import Central, Fleet, a_fleet, answers, eventually


@pytest.fixture(scope="module")
def central() -> Iterator[Central]:
    made = Central()
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, central: Central) -> Iterator[Fleet]:
    with a_fleet(tmp_path_factory.mktemp("fleet"), central.url) as made:
        yield made


@pytest.fixture(autouse=True)
def well(fleet: Fleet, central: Central) -> None:
    """Each test begins with a central that takes everything, and knows the line."""
    central.codes, central.hang = {}, False
    eventually(lambda: shown(fleet) == (True, ""))


def shown(fleet: Fleet) -> tuple[Any, str]:
    line = fleet.line("alpha")
    return line["registered"], line["heartbeat_error"]


def since(central: Central, path: str, count: int, more: int = 1) -> bool:
    return len(central.bodies(path)) >= count + more


@pytest.mark.parametrize("trouble", ["gone", "hanging", "500"])
def test_a_central_in_trouble_is_told_of_and_registered_with_anew(fleet: Fleet, central: Central, trouble: str) -> None:
    """The line keeps its process and answers; its beats fail visibly; when the central is back it hears who is there."""
    before = fleet.line("alpha")
    registrations = len(central.bodies("/register_factory"))
    if trouble == "gone":
        central.close()
    central.hang = trouble == "hanging"
    central.codes = {"/heartbeat": 500, "/register_factory": 500} if trouble == "500" else {}
    line = eventually(lambda: (line := fleet.line("alpha"))["heartbeat_error"] and line)
    assert {"gone": "cannot be reached", "hanging": "no answer within 5 s", "500": "answered 500"}[trouble] in line[
        "heartbeat_error"
    ]
    assert (True, before["pid"]) == (line["ready"], line["pid"])
    assert answers(fleet.alpha) is not None
    last = line["last_heartbeat"]
    central.codes, central.hang = {}, False
    if trouble == "gone":
        central.open()
    eventually(lambda: since(central, "/register_factory", registrations))
    eventually(lambda: shown(fleet) == (True, ""))
    after = fleet.line("alpha")
    assert last < after["last_heartbeat"]
    assert (before["pid"], before["restarts"]) == (after["pid"], after["restarts"])


def test_a_central_that_forgot_the_line_is_told_again(fleet: Fleet, central: Central) -> None:
    """404 to a beat means that it does not know us."""
    registrations = len(central.bodies("/register_factory"))
    central.codes = {"/heartbeat": 404}
    eventually(lambda: since(central, "/register_factory", registrations))
    assert fleet.line("alpha")["registered"] is True
    central.codes = {}


def test_live_settings_are_taken_on_without_a_restart(fleet: Fleet, central: Central) -> None:
    """After SIGHUP: of its own generation only; capabilities are registered anew; the process stays."""
    line = fleet.line("alpha")
    registrations = len(central.bodies("/register_factory"))
    path = WorkerFolder(fleet.state("alpha")).settings
    other = LiveSettings(line["generation"] + 1, 7.0, {"security_level": "other"})
    path.write_bytes(other.to_json())
    os.kill(line["pid"], signal.SIGHUP)
    path.write_bytes(LiveSettings(line["generation"], 0.2, {"security_level": "high"}).to_json())
    os.kill(line["pid"], signal.SIGHUP)
    eventually(lambda: since(central, "/register_factory", registrations))
    assert {"security_level": "high"} == central.bodies("/register_factory")[-1]["capabilities"]
    assert "settings: heartbeat every 0.2 s, capabilities {'security_level': 'high'}" in fleet.log("alpha")
    assert "'other'" not in fleet.log("alpha")
    assert line["pid"] == fleet.line("alpha")["pid"]
