"""Whoever may write one of the fleet's folders, or has once, does not get the fleet to write or read elsewhere.

Each trap leads to a folder outside, in which nothing may change. The real command line, as root or not.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.harness import Fleet, eventually, living_in

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


class Plant:
    """A fleet in ``fleet.folder``, as it is before its first start, and what nobody of it may touch."""

    def __init__(self, folder: Path) -> None:
        (folder / "plant").mkdir(mode=0o755)
        (folder / "plant").chmod(0o755)  # whatever the umask
        self.fleet = Fleet(folder / "plant", central="http://127.0.0.1:9")
        self.state, self.logs = folder / "plant" / ".fleet", folder / "plant" / "logs"
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.file = self.outside / "file"
        self.file.write_text("untouched\n")
        self.file.chmod(0o644)
        self.outside.chmod(0o755)

    def lead_out(self, name: str, target: Path | None = None) -> None:
        """A link at ``name`` below the plant's folder."""
        link = self.fleet.folder / name
        for folder in reversed(link.relative_to(self.fleet.folder).parents):
            (self.fleet.folder / folder).mkdir(mode=0o700, exist_ok=True)
        link.symlink_to(target or self.file)

    def down(self) -> None:
        """Where the trap still lies, there is nothing to end, and `fleet down` refuses as `fleet up` does."""
        self.fleet.run("down")
        eventually(lambda: not living_in(self.fleet.folder), 30.0)

    def looks(self) -> list[tuple[str, int, int, str]]:
        """Names, modes, owners and contents outside."""
        found = [self.outside, *sorted(self.outside.rglob("*"))]
        told = [(one, one.lstat()) for one in found]
        return [
            (str(one), stat.S_IMODE(how.st_mode), how.st_uid, one.read_text() if one.is_file() else "")
            for one, how in told
        ]


@pytest.fixture
def plant(tmp_path: Path) -> Plant:
    return Plant(tmp_path)


def refused(plant: Plant, *words: str) -> None:
    """``fleet up`` names what is wrong and what to do, with the code of a mistake; nothing has changed outside."""
    before = plant.looks()
    try:
        up = plant.fleet.run("up", "--detach", "--timeout", "60")
        said = " ".join((up.stdout + up.stderr).split())
        assert (2, before) == (up.returncode, plant.looks()), said
        assert [] == [word for word in (*words, "next step:") if word not in said], said
        assert [] == living_in(plant.fleet.folder)
    finally:
        plant.down()


LINKS = [".fleet/supervisor.lock", ".fleet/control.sock", ".fleet/run/alpha.json", ".fleet/history/events.jsonl"]
LINKS += ["logs/fleet.log", "logs/fleet.out"]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_in_the_place_of_a_file_is_refused(plant: Plant, name: str) -> None:
    """By its name; what it leads to is neither written, emptied, read, nor given another mode."""
    plant.lead_out(name)
    refused(plant, str(plant.fleet.folder / name), "is a symbolic link", "rm ")


@pytest.mark.parametrize("name", [".fleet/run", ".fleet/datasites/alpha"])
def test_a_link_in_the_place_of_a_folder_is_refused(plant: Plant, name: str) -> None:
    """The state of a datasite does not go where a link leads."""
    plant.lead_out(name, plant.outside)
    refused(plant, str(plant.fleet.folder / name), "is a symbolic link", "rm ")


@pytest.mark.parametrize("name", [pytest.param("identity.json", marks=pytest.mark.slow), "syft"])
def test_a_link_in_a_datasites_folder_stops_that_datasite(plant: Plant, name: str) -> None:
    """It is quarantined with the reason, and its neighbour serves."""
    plant.lead_out(f".fleet/datasites/alpha/{name}")
    before = plant.looks()
    try:
        up = plant.fleet.run("up", "--detach", "--timeout", "100")
        alpha, beta = plant.fleet.line("alpha"), plant.fleet.line("beta")
        assert (1, "quarantined", True) == (up.returncode, alpha["state"], beta["ready"]), up.stdout + up.stderr
        assert f".fleet/datasites/alpha/{name} is a symbolic link" in alpha["reason"]
        assert before == plant.looks()
    finally:
        plant.down()


def test_a_link_in_the_place_of_a_datasites_log_stops_that_datasite(plant: Plant) -> None:
    """Nothing is appended to what it leads to."""
    plant.lead_out("logs/alpha.log")
    before = plant.looks()
    try:
        plant.fleet.run("up", "--detach", "--timeout", "100")
        assert "logs/alpha.log is a symbolic link" in plant.fleet.line("alpha")["reason"]
        assert before == plant.looks()
    finally:
        plant.down()


@AS_ROOT
@pytest.mark.parametrize("name", [".fleet", "logs", ""])
def test_a_folder_of_another_user_is_refused(plant: Plant, name: str) -> None:
    """The state folder, the log folder, or one above; its mode and owner are left as they were."""
    folder = plant.fleet.folder / name
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    os.chown(folder, NOBODY, NOBODY)
    refused(plant, f"the folder {folder} belongs to nobody", f"chown root {folder}")
    assert (NOBODY, 0o755) == (folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode))


@AS_ROOT
def test_a_link_of_another_user_is_not_followed(plant: Plant) -> None:
    """Not even to a folder that is ours."""
    plant.state.symlink_to(plant.outside)
    os.lchown(plant.state, NOBODY, NOBODY)
    refused(plant, f"the symbolic link {plant.state} belongs to nobody")


@AS_ROOT
def test_a_file_of_another_user_is_refused(plant: Plant) -> None:
    """A run file would say what is to be adopted, and ended."""
    plant.lead_out(".fleet/run/alpha.json")
    run = plant.state / "run" / "alpha.json"
    run.unlink()
    run.write_text("{}")
    os.chown(run, NOBODY, NOBODY)
    refused(plant, f"{run} belongs to nobody")


MODES: list[tuple[Callable[[Plant], Path], int, str]] = [
    (lambda plant: plant.fleet.folder, 0o777, "everybody may write"),
    (lambda plant: plant.fleet.folder, 0o775, "a group may write"),
    (lambda plant: plant.logs, 0o777, "everybody may write"),
    (lambda plant: plant.state, 0o1777, "everybody may write"),
]


@pytest.mark.parametrize(("where", "mode", "words"), MODES)
def test_a_folder_that_others_may_write_is_refused(
    plant: Plant, where: Callable[[Plant], Path], mode: int, words: str
) -> None:
    """With the command that mends it; a folder that a group shares is one of these, unless the group is one's own."""
    folder = where(plant)
    folder.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        os.chown(folder, -1, NOBODY)
    elif words == "a group may write":
        pytest.skip("only root can give a folder to a group of others")
    folder.chmod(mode)
    refused(plant, f"{words} the folder {folder}")


@AS_ROOT
def test_down_ends_nothing_by_another_users_run_files(plant: Plant) -> None:
    """``fleet down`` without a supervisor would signal whatever pid they name."""
    plant.state.mkdir(mode=0o700)
    (plant.state / "run").mkdir()
    os.chown(plant.state, NOBODY, NOBODY)
    down = plant.fleet.run("down")
    assert (2, True) == (down.returncode, "belongs to nobody" in down.stderr), down.stderr
    os.chown(plant.state, 0, 0)
