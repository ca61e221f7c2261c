"""Closed standard files, a disk that takes nothing, a limit of memory, any umask: each is told in words, or does no
harm."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing import process
from pathlib import Path

import pytest

from fleet_common import failures, folders, state_files
from fleet_common.layout import HistoryFolder, StateFolder
from fleet_tools.ports import free_ports
from supervisor.effects import launcher, lock
from supervisor.effects.inbox import Inbox
from supervisor.effects.recorder import Recorder
from supervisor.effects.run_files import RunFile, RunFiles
from supervisor.history import Event, EventKind
from supervisor.record import WorkerRecord

pytestmark = pytest.mark.process

DOOR = str(Path(sys.executable).with_name("fleet"))
_READ_ONLY, _REMOUNT = 1, 32  # linux/mount.h


@pytest.fixture
def plant(tmp_path: Path) -> Path:
    (tmp_path / "fleet.yaml").write_text(
        f"version: 1\nname: test\ndatasites:\n  - {{name: alpha, port: {free_ports(1)[0]}}}\n"
    )
    return tmp_path


def fleet(plant: Path, *words: str, shell: str = "") -> subprocess.CompletedProcess[str]:
    command = ["bash", "-c", f'"$0" "$@" {shell}', DOOR, *words]
    return subprocess.run(command, cwd=plant, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", [("version",), ("validate",), ("schema",), ("down",)])
def test_a_command_without_standard_files_does_the_same(plant: Path, words: tuple[str, ...]) -> None:
    """As from cron, or a service manager that closes them. Only nobody hears what it says."""
    assert fleet(plant, *words).returncode == fleet(plant, *words, shell="<&- >&- 2>&-").returncode


NUMBERS = """
import os, sys
for number in (0, 1, 2):
    os.close(number)
sys.stdin = sys.stdout = sys.stderr = None
from supervisor.__main__ import _open_what_is_closed
_open_what_is_closed()
with open(sys.argv[1], "w") as told:
    print([os.readlink(f"/proc/self/fd/{n}") for n in (0, 1, 2)], told.fileno() > 2, file=told)
print("to nobody"), print("to nobody", file=sys.stderr)
"""


def test_no_file_takes_the_place_of_a_standard_one(tmp_path: Path) -> None:
    """What is printed would be written into it."""
    done = subprocess.run([sys.executable, "-c", NUMBERS, str(tmp_path / "told")], check=False, timeout=60)
    assert (0, f"{['/dev/null'] * 3} True\n") == (done.returncode, (tmp_path / "told").read_text())


@pytest.fixture
def disk(plant: Path) -> Iterator[Path]:
    """A state folder on a disk of its own, where a supervisor was killed."""
    libc, folder = ctypes.CDLL(None, use_errno=True), plant / ".fleet"
    folder.mkdir(0o700)
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=256k,mode=0700") != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    state = StateFolder(folder)
    for made in (state.run, state.history.root, state.datasites, state.worker("alpha").root):
        made.mkdir(mode=0o700)
    for left in (state.worker("alpha").leash, state.lock):
        left.touch(0o600)
    (state.run / "alpha.json").write_text("{}")
    yield folder
    libc.umount2(str(folder).encode(), 2)


@pytest.mark.parametrize("trouble", ["read-only", "full"])
def test_down_ends_what_is_left_on_a_disk_that_takes_nothing(plant: Path, disk: Path, trouble: str) -> None:
    """A datasite that was left behind is ended, in words."""
    leash = StateFolder(disk).worker("alpha").leash
    environ = {**os.environ, "FLEET_LEASH": str(leash)}
    left = subprocess.Popen(["sleep", "600"], env=environ, start_new_session=True)
    if trouble == "read-only":
        flags = _READ_ONLY | _REMOUNT
        assert 0 == ctypes.CDLL(None).mount(b"tmpfs", str(disk).encode(), b"tmpfs", flags, b"")
    else:
        with pytest.raises(OSError, match="No space"):
            (disk / "ballast").write_bytes(b"x" * 2**20)
    done = fleet(plant, "down")
    left.kill()
    assert (0, "alpha stopped (its supervisor had ended)\n", -9) == (done.returncode, done.stdout, left.wait()), (
        done.stderr
    )
    again = fleet(plant, "down")
    assert (3, False) == (again.returncode, "Traceback" in again.stderr), again.stderr


@pytest.mark.parametrize("words", [("up", "--yes"), ("up", "--detach"), ("status",), ("down",), ("events",)])
def test_a_state_folder_that_cannot_be_used_is_told_in_words(plant: Path, words: tuple[str, ...]) -> None:
    """A file where the folder should be, say: no traceback, whatever is asked."""
    (plant / ".fleet").write_text("")
    done = fleet(plant, *words)
    assert (True, False) == (done.returncode in (0, 1, 2, 3), "Traceback" in done.stderr), done.stderr


def test_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    """Nobody else reads or writes them, even where the folder above were open."""
    before = os.umask(0)
    try:
        state = StateFolder(tmp_path / "state")
        folders.make(state.root)
        RunFiles(state.run).write(RunFile("alpha", 1, 77, 5, "boot", "f"))
        recorder = Recorder(HistoryFolder(state.history.root))
        recorder.event(Event("alpha", EventKind.EXITED, "ended"), "now")
        for restarts in (1, 2):
            recorder.ledger({"alpha": WorkerRecord("alpha", restarts=restarts)}, running=True)
        recorder.close()
        state_files.succeed(state.gpus, {})
        os.close(lock.lock(state.lock) or 0)
        folders.appended(tmp_path / "state" / "logs" / "fleet.out").close()
        inbox = Inbox(state.pulse_socket)
        modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in state.root.rglob("*")}
        inbox.close()
    finally:
        os.umask(before)
    assert {} == {path: oct(mode) for path, mode in modes.items() if mode & 0o077}
    assert len(modes) > 9


def test_the_forkservers_sockets_lie_in_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a killed supervisor are removed, and nothing stays in /tmp. A path that is too long for a socket is not
    used."""
    monkeypatch.setattr(process.current_process(), "_config", {})
    for folder, used in ((tmp_path / "f", True), (tmp_path / ("d" * 100), False)):
        folder.mkdir(mode=0o700)
        (folder / "listener-abc").touch()
        launcher._use(folder)
        assert [] == list(folder.iterdir())
        assert used == (process.current_process()._config.pop("tempdir", "") == str(folder))  # type: ignore[attr-defined]


LIMITED = """
import json, resource, sys
from fleet_common import failures
from supervisor.effects import launcher
resource.setrlimit(resource.RLIMIT_AS, (400 * 2**20, 400 * 2**20))
lacking = ImportError("libtorch_cpu.so: failed to map segment from shared object")
print(json.dumps([launcher._why(ConnectionRefusedError()), failures.in_words(MemoryError()), failures.in_words(lacking),
                  failures.in_words(ValueError("x"))]))
"""


def test_a_limit_of_memory_is_named() -> None:
    """Neither a refused connection nor a library that cannot be mapped tells the operator what to change."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, timeout=60, check=True)
    refused, memory, mapped, other = json.loads(done.stdout)
    limit = "its address space is limited to 400 MiB (ulimit -v)"
    assert [True, True, True, False] == [limit in one for one in (refused, memory, mapped, other)]
    assert refused.startswith("the forkserver ended while it loaded PySyft")
    assert "OSError: [Errno 12] x" == failures.in_words(OSError(errno.ENOMEM, "x"))
