"""The state folder of a running fleet is removed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.harness import Fleet, a_fleet, eventually


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Fleet]:
    with a_fleet(tmp_path) as fleet:
        yield fleet


@pytest.mark.slow
def test_a_fleet_whose_folder_is_removed_is_still_one_fleet(doomed: Fleet) -> None:
    """A second supervisor is refused, and `fleet down` leaves no process of the first."""
    pids = {line["pid"] for line in doomed.status()["datasites"]}
    shutil.rmtree(doomed.folder / ".fleet")
    assert 5 == doomed.run("up", "--detach", "--timeout", "30").returncode
    eventually(lambda: doomed.run("status").returncode == 0)
    assert pids == {line["pid"] for line in doomed.status()["datasites"]}
    doomed.must("down")
    eventually(lambda: not doomed.left())
