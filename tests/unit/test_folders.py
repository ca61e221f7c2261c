"""Which folders are trusted, how files in them are opened, replaced and logged to. Real files, as root and not."""

from __future__ import annotations

import logging
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet_common import folders, process
from fleet_common.folders import Unsafe
from supervisor import daemon
from supervisor.spec import DashboardSpec, DatasiteSpec, FleetConfig

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


# --- the path ---


def test_what_is_missing_is_made_private(tmp_path: Path) -> None:
    """Each folder on the way, whatever the umask."""
    folders.check(tmp_path / "a" / "b", make=True)
    assert (0o700, 0o700) == (mode(tmp_path / "a"), mode(tmp_path / "a" / "b"))


def test_a_missing_folder_is_named_in_full(tmp_path: Path) -> None:
    """An error says which path, and not only its last word."""
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "a")):
        folders.check(tmp_path / "a" / "b")


@pytest.mark.parametrize(("bits", "whom"), [(0o775, "a group"), (0o777, "everybody"), (0o757, "everybody")])
def test_a_folder_that_others_may_write_is_refused_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, whom: str
) -> None:
    """On the way as at its end; it says who, which, and the command that mends it."""
    monkeypatch.setattr(folders, "_is_private", lambda _state: False)
    shared = tmp_path / "shared"
    (shared / "own").mkdir(parents=True)
    shared.chmod(bits)
    for path in (shared, shared / "own", shared / "not yet" / "there"):
        with pytest.raises(Unsafe, match=f"{whom} may write the folder {shared} ") as caught:
            folders.check(path, make=True)
        assert f"chmod g-w,o-w {shared}" == caught.value.next_step
    assert bits == mode(shared)


def test_a_group_of_ones_own_is_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many distributions give each user a group, and umask 002. With another member it is one like any other."""
    me = pwd.getpwuid(os.geteuid())
    (tmp_path / "own").mkdir()
    (tmp_path / "own").chmod(0o775)
    for name, first, members, accepted in (
        (me.pw_name, me.pw_gid, [], True),
        (me.pw_name, me.pw_gid, [me.pw_name], True),
        (me.pw_name, me.pw_gid, ["somebody"], False),
        ("staff", me.pw_gid, [], False),
        (me.pw_name, me.pw_gid + 1, [], False),
    ):
        group = SimpleNamespace(gr_name=name, gr_gid=first, gr_mem=members)
        monkeypatch.setattr("fleet_common.folders.grp.getgrgid", lambda _gid, group=group: group)
        try:
            folders.check(tmp_path / "own")
            refused = False
        except Unsafe:
            refused = True
        assert accepted is not refused, (name, first, members)


def test_a_sticky_folder_will_do_on_the_way_and_not_at_the_end(tmp_path: Path) -> None:
    """In /tmp nobody can rename what is ours; but a state folder is not shared, sticky or not."""
    sticky = tmp_path / "sticky"
    (sticky / "own").mkdir(parents=True, mode=0o700)
    (sticky / "own").chmod(0o700)
    sticky.chmod(0o1777)
    folders.check(sticky / "own")
    with pytest.raises(Unsafe, match="everybody may write"):
        folders.check(sticky)


def test_links_of_our_own_are_followed_and_their_ends_are_judged(tmp_path: Path) -> None:
    """Relative, absolute, through `..`; and no circle is gone round for ever."""
    (tmp_path / "real" / "state").mkdir(parents=True)
    (tmp_path / "real").chmod(0o700)
    (tmp_path / "real" / "state").chmod(0o755)
    (tmp_path / "far").symlink_to(tmp_path / "real")
    (tmp_path / "near").symlink_to("real/../far/state")
    folders.check(tmp_path / "near")
    (tmp_path / "real").chmod(0o777)
    with pytest.raises(Unsafe, match=str(tmp_path / "real")):
        folders.check(tmp_path / "near")
    (tmp_path / "round").symlink_to("round")
    with pytest.raises(Unsafe, match="too many symbolic links"):
        folders.check(tmp_path / "round")


@AS_ROOT
def test_another_users_folder_or_link_is_refused(tmp_path: Path) -> None:
    """By the name of its owner."""
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    (tmp_path / "link").symlink_to(tmp_path)
    os.lchown(tmp_path / "link", NOBODY, NOBODY)
    for name, words in (("theirs", "the folder .*theirs belongs to nobody, not to root"), ("link", "symbolic link")):
        with pytest.raises(Unsafe, match=words):
            folders.check(tmp_path / name)


def test_make_takes_back_what_others_may_read_and_follows_no_link(tmp_path: Path) -> None:
    """A folder of ours becomes private; a link in its place is refused, whoever made it."""
    (tmp_path / "state").mkdir(mode=0o755)
    (tmp_path / "state").chmod(0o755)
    folders.make(tmp_path / "state")
    assert 0o700 == mode(tmp_path / "state")
    (tmp_path / "outside").mkdir()
    before = mode(tmp_path / "outside")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(Unsafe, match="link is a symbolic link"):
        folders.make(tmp_path / "link")
    assert before == mode(tmp_path / "outside")


# --- files ---


def _link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def _hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside)


def _pipe(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path, outside: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("trap", [_link, _hard_link, _pipe, _folder])
def test_only_a_plain_file_is_opened(tmp_path: Path, trap: Callable[[Path, Path], None]) -> None:
    """A link, a second name of another file, a pipe (that would be waited for) and a folder are not."""
    (tmp_path / "own").mkdir(mode=0o700)
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    outside.chmod(0o644)
    trap(tmp_path / "own" / "file", outside)
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_APPEND | os.O_CREAT, os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        with pytest.raises((Unsafe, IsADirectoryError, OSError), match=str(tmp_path / "own" / "file")):
            folders.open_file(tmp_path / "own" / "file", flags)
    assert ("untouched" if trap is not _hard_link else outside.read_text()) == outside.read_text()
    assert 0o644 == mode(outside)


def test_a_file_of_ours_becomes_private(tmp_path: Path) -> None:
    """Whether it is new or not, and whatever the umask."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("kept")
    for path in (old, new):
        os.close(folders.open_file(path, os.O_RDWR | os.O_CREAT))
    assert ([0o600] * 2, "kept") == ([mode(old), mode(new)], old.read_text())


def test_a_socket_makes_way_and_nothing_else_does(tmp_path: Path) -> None:
    """A file in the place of the control socket is not removed."""
    folders.make_way(tmp_path / "nothing")
    (tmp_path / "file").write_text("kept")
    with pytest.raises(Unsafe, match="file is not a socket"):
        folders.make_way(tmp_path / "file")
    assert "kept" == (tmp_path / "file").read_text()


# --- what is written at once ---


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """While it is written the old one is there; who fails leaves it there."""
    path = tmp_path / "kept.json"
    folders.write_text(path, "old")
    with pytest.raises(ZeroDivisionError):
        _fail_halfway(path)
    assert "old" == path.read_text()
    folders.write_text(path, "new")
    assert ("new", 0o600, [path]) == (path.read_text(), mode(path), list(tmp_path.iterdir()))


def test_what_is_replaced_is_no_way_out(tmp_path: Path) -> None:
    """A link in the place of the file, or of the part of it, is replaced; what it leads to stays as it was."""
    outside, path = tmp_path / "outside", tmp_path / "kept"
    outside.write_text("untouched")
    path.symlink_to(outside)
    (tmp_path / "kept.part").symlink_to(outside)
    folders.write_text(path, "new")
    assert ("new", "untouched", False) == (path.read_text(), outside.read_text(), path.is_symlink())


def _fail_halfway(path: Path) -> None:
    with folders.durable(path) as file:
        file.write(b"half of the n")
        assert "old" == path.read_text()
        raise ZeroDivisionError


@pytest.mark.parametrize(("lasting", "synced"), [(True, 2), (False, 0)])
def test_what_has_to_last_is_on_the_disk_before_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lasting: bool, synced: int
) -> None:
    """The file before it gets its name, the folder afterwards; for what no reboot outlives the disk is not waited for."""
    done: list[str] = []
    rename = os.rename

    def renamed(*names: Any, **how: Any) -> None:
        done.append("rename")
        rename(*names, **how)

    monkeypatch.setattr(os, "fsync", lambda fd: done.append("sync"))
    monkeypatch.setattr(os, "rename", renamed)
    folders.write_text(tmp_path / "kept", "text", lasting=lasting)
    assert (["sync", "rename", "sync"] if synced else ["rename"]) == done


# --- logs ---


def test_logs_are_private_whatever_was_there(tmp_path: Path) -> None:
    """Today's, those turned over before, and those turned over later."""
    path = tmp_path / "logs" / "fleet.log"
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o755)
    for name in ("fleet.log", "fleet.log.1", "fleet.log.2"):
        (path.parent / name).write_text(f"{name}\n")
        (path.parent / name).chmod(0o664)
    handler = folders.RotatingLog(path, size=50, backups=3)
    for number in range(3):
        handler.handle(logging.makeLogRecord({"msg": f"{number} " + "x" * 30}))
    handler.close()
    found = {one.name: mode(one) for one in path.parent.iterdir()}
    assert dict.fromkeys(("fleet.log", "fleet.log.1", "fleet.log.2", "fleet.log.3"), 0o600) == found
    assert "fleet.log\n" in (path.parent / "fleet.log.3").read_text() + (path.parent / "fleet.log.2").read_text()


def test_a_log_is_not_turned_over_onto_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing goes where a link leads that was planted meanwhile; the line is lost, and whoever logs goes on."""
    monkeypatch.setattr("logging.raiseExceptions", False)  # as daemon and datasite have it
    outside, path = tmp_path / "outside", tmp_path / "fleet.log"
    outside.write_text("untouched")
    handler = folders.FollowedLog(str(path), encoding="utf-8")
    handler.handle(logging.makeLogRecord({"msg": "before"}))
    path.unlink()
    path.symlink_to(outside)
    handler.handle(logging.makeLogRecord({"msg": "lost"}))
    path.unlink()
    handler.handle(logging.makeLogRecord({"msg": "after"}))
    assert ("untouched", "after\n") == (outside.read_text(), path.read_text())


# --- what a start looks at ---


def _config(folder: Path) -> FleetConfig:
    datasites = (DatasiteSpec("alpha", 8080),)
    return FleetConfig("test", folder / "fleet.yaml", folder / ".fleet", folder / "logs", datasites, DashboardSpec())


@pytest.mark.parametrize(
    "name",
    [
        *("supervisor.lock", "control.sock", "pulse.sock", "gpus.json", "run", "run/alpha.json", "datasites"),
        *("history", "history/events.jsonl", "history/ledger.json", "datasites/alpha", "dashboard"),
    ],
)
def test_a_start_refuses_every_link_in_the_state_folder(tmp_path: Path, name: str) -> None:
    """By its name, before anything is made beside it."""
    link = tmp_path / ".fleet" / name
    link.parent.mkdir(parents=True)
    (tmp_path / ".fleet").chmod(0o700)
    link.symlink_to(tmp_path)
    with pytest.raises(Unsafe, match=f"{link} is a symbolic link"):
        daemon._prepare_folders(_config(tmp_path))


@pytest.mark.parametrize("name", ["identity.json", "admin.json", "admins", "leash", "datasets.json", "syft", "work"])
def test_a_datasite_refuses_every_link_in_its_folder(tmp_path: Path, name: str) -> None:
    """PySyft's own files as well as ours."""
    state = tmp_path / "alpha"
    state.mkdir(mode=0o700)
    (state / name).symlink_to(tmp_path)
    with pytest.raises(Unsafe, match=f"{state / name} is a symbolic link"):
        process.own_folders(state, state / "work")


# --- a state folder of the release before ---


def test_a_state_folder_as_it_was_made_before_opens_unchanged(tmp_path: Path) -> None:
    """With the modes that a usual umask gave it, and everything that is in it."""
    for name, bits in OLD_FOLDERS.items():
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(bits)
    for name, bits in OLD_FILES.items():
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(bits)
    daemon._prepare_folders(_config(tmp_path))
    assert {name: name for name in OLD_FILES} == {name: (tmp_path / name).read_text() for name in OLD_FILES}
    assert {0o700} == {mode(tmp_path / name) for name in OLD_FOLDERS if name not in ("logs", ALPHA + "/syft")}


ALPHA = ".fleet/datasites/alpha"
OLD_FOLDERS = {
    ".fleet": 0o700,
    ".fleet/run": 0o700,
    ".fleet/history": 0o700,
    ".fleet/datasites": 0o775,  # by the umask of a user with a group of his own
    ALPHA: 0o700,
    f"{ALPHA}/syft": 0o700,
    "logs": 0o755,
}
OLD_FILES = {
    ".fleet/supervisor.lock": 0o600,
    ".fleet/gpus.json": 0o644,
    ".fleet/run/alpha.json": 0o644,
    ".fleet/history/events.jsonl": 0o644,
    ".fleet/history/ledger.json": 0o644,
    f"{ALPHA}/identity.json": 0o600,
    f"{ALPHA}/leash": 0o600,
    f"{ALPHA}/settings.json": 0o644,
    "logs/fleet.log": 0o644,
    "logs/alpha.log": 0o600,
}
