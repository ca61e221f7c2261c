"""A datasite whose state is damaged, missing or on a full disk says so by name, alone, and comes back when it is mended.

The tests of this file share a fleet on a small disk of its own.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_tools.chaos.disk import Disk
from fleet_tools.temporary_fleet import brought_up
from tests.real.harness import Fleet, answers, eventually

DISK_MB = 64
SQL = ("SELECT", "INSERT", "PRAGMA", "[SQL", "sqlalche.me", "sqlite3.")


class OnSmallDisk(Fleet):
    disk: Disk

    def parts(self) -> dict[str, Path]:
        """What beta has: its folder, its identity, its database."""
        folder = self.state("beta")
        (database,) = folder.glob("syft/*/db/*_json.db")
        return {"folder": folder, "identity": folder / "identity.json", "database": database}

    def refused(self) -> str:
        """Why beta is not started, as its operator reads it: after one try, and without SQL."""
        before = self.line("beta")
        assert 1 == self.run("start", "beta").returncode
        line = eventually(lambda: (line := self.line("beta"))["state"] == "quarantined" and line)
        assert before["restarts"] == line["restarts"]
        self.speaks_plainly(line["reason"])
        return str(line["reason"])

    def speaks_plainly(self, reason: str) -> None:
        """Neither the reason nor the log shows SQL, or where in the code it happened."""
        log = self.log("beta")
        assert [] == [word for word in (*SQL, "Traceback") if word in reason + log]

    def mended(self) -> None:
        assert 0 == self.run("start", "beta").returncode
        assert "running" == (answers(self.beta) or {})["status"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnSmallDisk]:
    folder = tmp_path_factory.mktemp("damaged")
    disk = Disk(folder / ".fleet", DISK_MB)
    try:
        with brought_up(OnSmallDisk(folder)) as made:
            made.disk = disk
            yield made
    finally:
        disk.close()


@pytest.fixture
def down(fleet: OnSmallDisk) -> Iterator[OnSmallDisk]:
    """Beta is down, and has again what it had, when the test is over."""
    assert 0 == fleet.run("stop", "beta").returncode
    folder, kept = fleet.state("beta"), fleet.folder / "kept"
    shutil.copytree(folder, kept)
    neighbour = fleet.line("alpha")
    yield fleet
    assert 0 == fleet.run("stop", "beta").returncode
    shutil.rmtree(folder)
    shutil.move(kept, folder)
    fleet.mended()
    after = fleet.line("alpha")
    assert (neighbour["pid"], "ready") == (after["pid"], after["state"])


def test_a_damaged_database_is_named_at_the_first_try(down: OnSmallDisk) -> None:
    """The file, what is wrong with it, and the ways out; ``fleet check`` says the same. ``tests/unit/test_kept.py`` has
    other damage."""
    database = down.parts()["database"]
    database.write_bytes(os.urandom(database.stat().st_size))
    reason = down.refused()
    assert f"its database {database} is damaged (" in reason
    assert "restore it from a backup" in reason
    checked = down.run("check", "beta")
    assert 1 == checked.returncode
    assert f"{database} is damaged" in checked.stdout + checked.stderr
    assert [] == [word for word in (*SQL, "Traceback") if word in checked.stdout + checked.stderr]


def test_check_finds_a_sound_datasite_sound_while_it_runs(fleet: OnSmallDisk) -> None:
    """For people and for scripts."""
    checked = fleet.run("check", "alpha")
    assert (0, True) == (checked.returncode, "alpha: nothing is damaged or missing" in checked.stdout), checked.stderr
    told = json.loads(fleet.run("check", "alpha", "--json").stdout)
    assert ("alpha", []) == (told["name"], told["problems"])


def test_a_full_disk_is_named_and_waited_for(down: OnSmallDisk) -> None:
    """No crash loop: the reason says where, and how full it is; it starts by itself when there is space."""
    if down.disk.why_not:
        pytest.skip(down.disk.why_not)
    down.disk.fill()
    try:
        reason = down.refused()
        assert f"no space left in {down.state('beta')} (0 of {DISK_MB * 2**20 / 10**6:.0f} MB free)" in reason
        assert 0 == down.line("beta")["restarts"]
    finally:
        down.disk.free()
    eventually(lambda: down.line("beta")["state"] == "ready")


def _gone(*parts: str) -> Callable[[OnSmallDisk], None]:
    def remove(fleet: OnSmallDisk) -> None:
        for part in parts:
            path = fleet.parts()[part]
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


MISSING: dict[str, tuple[Callable[[OnSmallDisk], None], str]] = {
    "identity": (_gone("identity"), "identity.json is missing"),
    "database": (_gone("database"), "_json.db is missing"),
    "folder": (_gone("folder"), "is missing or empty"),
}


@pytest.mark.parametrize("what", MISSING)
def test_what_is_missing_never_becomes_an_empty_datasite(down: OnSmallDisk, what: str) -> None:
    """Named, with the ways out; nothing is made in its place."""
    remove, words = MISSING[what]
    remove(down)
    reason = down.refused()
    assert words in reason
    assert all(way in reason for way in ("restore it", "mount", "reset: true"))
    assert [] == [name for name in ("identity.json", "admin.json") if _is_new(down, name)]


def _is_new(fleet: OnSmallDisk, name: str) -> bool:
    """Whether the datasite has drawn another."""
    path = fleet.state("beta") / name
    return path.exists() and path.read_bytes() != (fleet.folder / "kept" / name).read_bytes()


def _told(done: Any) -> str:
    return str(done.stdout + done.stderr)


def test_an_empty_state_folder_starts_nothing(fleet: OnSmallDisk) -> None:
    """As when its disk is not mounted at boot: refused, and nothing is written there.
    The last test of the file, whose fleet it ends."""
    fleet.down()
    state = fleet.state_folder.root
    for one in state.iterdir():
        shutil.rmtree(one) if one.is_dir() else one.unlink()
    done = fleet.run("up", "--detach", "--timeout", "60")
    assert (1, True) == (done.returncode, f"{state} is missing or empty" in _told(done)), _told(done)
    assert "mount" in _told(done)
    assert [] == list(state.iterdir())
