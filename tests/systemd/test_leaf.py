"""A unit whose lines are held by control groups can be started again: with the real systemd, of whichever version.

Seen from the kernel's side in ``tests/kernel/test_groups.py``; here it is what systemd does about it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.faces.systemd import RESTART_STEPS, unit_text
from tests.systemd.host import Host, controllers, eventually, obstacle
from tests.unit.test_systemd_unit import directives, plan

_OBSTACLE = obstacle() or ("" if controllers() else "cgroup v2 controls nothing here")
pytestmark = pytest.mark.skipif(bool(_OBSTACLE), reason=_OBSTACLE or "systemd can be booted here")
UNIT = "small.service"
PLACE = "/srv/small"
CGROUP_FAILED = "219"
"""systemd.exec(5): the main process could not be put into its control group."""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Host() as made:
        made.control(controllers())
        yield made


class Small:
    """``small_fleet.py`` as a unit, with what ``fleet install systemd`` writes of control groups for ``version``."""

    def __init__(self, host: Host, version: int, *, frees: bool = True) -> None:
        self.host = host
        host.run("rm", "-rf", PLACE)
        host.path(PLACE).mkdir()
        host.path(f"/etc/systemd/system/{UNIT}").write_text(
            f"[Unit]\nStartLimitIntervalSec=0\n[Service]\nDelegate=yes\nKillMode=process\nRestart=always\nRestartSec=1\n"
            f"Environment=PYTHONPATH={Path(__file__).parents[2]}\n"
            f"ExecStart={sys.executable} {Path(__file__).with_name('small_fleet.py')} {PLACE} {' '.join(controllers())}\n"
            + _of_control_groups(version, frees=frees)
        )
        host.run("systemctl", "daemon-reload")
        host.run("systemctl", "start", UNIT)
        self.waits_for(1)

    def told(self) -> list[dict[str, Any]]:
        path = self.host.path(f"{PLACE}/told")
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def waits_for(self, starts: int) -> None:
        eventually(lambda: len(self.told()) == starts, 60.0)

    def is_killed(self) -> None:
        self.host.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", UNIT)

    def line_lives(self) -> bool:
        pid = self.host.path(f"{PLACE}/line").read_text()
        return self.host.attempt("kill", "-0", pid).returncode == 0

    def show(self, name: str) -> str:
        return self.host.run("systemctl", "show", "--value", "--property", name, UNIT).strip()

    def ends(self) -> None:
        self.host.run("systemctl", "stop", UNIT)
        self.host.attempt("systemctl", "kill", "--signal=KILL", UNIT)


def _of_control_groups(version: int, *, frees: bool) -> str:
    written = directives(unit_text(plan(systemd=version)))
    stops = [line for line in written["ExecStopPost"] if "subtree_control" in line] if frees else []
    named = {
        "ExecStopPost": [line.replace("memory cpu", " ".join(controllers())) for line in stops],
        "Environment": [value for value in written["Environment"] if "CGROUP" in value],
        "DelegateSubgroup": written.get("DelegateSubgroup", []),
    }
    return "".join(f"{key}={value}\n" for key, values in named.items() for value in values)


def _version(host: Host) -> int:
    return int(host.run("systemctl", "--version").split()[1])


def test_a_killed_supervisor_starts_again_beside_a_line_that_is_held(host: Host) -> None:
    """Twice; each time in the leaf, with the controllers on, and the line that outlived it is the same."""
    small = Small(host, _version(host))
    for starts in (2, 3):
        small.is_killed()
        small.waits_for(starts)
    assert ({f"/system.slice/{UNIT}/supervisor"}, True) == ({one["sits"] for one in small.told()}, small.line_lives())
    assert all("the kernel enforces limits of" in one["words"] for one in small.told())
    small.ends()


def test_why_the_unit_frees_its_group(host: Host) -> None:
    """Without that, a systemd before 254 cannot start the unit again while a line lives: what the unit is written for."""
    if _version(host) >= RESTART_STEPS:
        pytest.skip("from systemd 254 on the supervisor starts in a leaf")
    small = Small(host, _version(host), frees=False)
    small.is_killed()
    eventually(lambda: small.show("ExecMainStatus") == CGROUP_FAILED, 30.0)
    assert (1, True) == (len(small.told()), small.line_lives())
    small.ends()
