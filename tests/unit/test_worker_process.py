"""How a process becomes a worker: its marks, its claim on its folder, its control group."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet_common import failures, listening, logs, process
from fleet_common.contract import LEASH_VARIABLE

pytestmark = pytest.mark.process


def _child(told: Connection, do: Callable[[Path], Any], folder: Path) -> None:
    process.become("fleet: test", folder / "work", folder / "log" / "test.log", state_dir=folder)
    told.send(do(folder))


def in_a_worker(do: Callable[[Path], Any], folder: Path) -> Any:
    """What ``do`` answers in a process that became a worker."""
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("spawn").Process(target=_child, args=(theirs, do, folder))
    child.start()
    theirs.close()
    assert ours.poll(30), "the worker said nothing"
    try:
        return ours.recv()
    finally:
        child.join(10)
        assert 0 == child.exitcode


def holds_leash(pid: int | str, leash: Path) -> bool:
    links = [str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.is_symlink()]
    return str(leash) in links


def _marks(folder: Path) -> dict[str, Any]:
    leash = folder / "leash"
    forked = os.fork()
    if forked == 0:
        signal.pause()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    environment = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    told = {
        "own": holds_leash("self", leash),
        "forked": holds_leash(forked, leash),
        "executed": f"{LEASH_VARIABLE}={leash}".encode() in environment,
        "hangup": signal.getsignal(signal.SIGHUP) is signal.SIG_IGN,
    }
    child.communicate(b"\n")
    os.kill(forked, signal.SIGKILL)
    os.waitpid(forked, 0)
    return told


def _double_fork(_folder: Path) -> bool:
    """Whether a grandchild whose parent is gone is ours."""
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    os.waitpid(middle, 0)
    strays = [child.pid for child in psutil.Process().children()]
    for stray in strays:
        os.kill(stray, signal.SIGKILL)
        os.waitpid(stray, 0)
    return len(strays) == 1


def _print_onto_a_full_disk(_folder: Path) -> bool:
    for number in (1, 2):
        os.dup2(os.open("/dev/full", os.O_WRONLY), number)
    for stream in (sys.stdout, sys.stderr):
        print("x" * 100_000, "\ud800", file=stream)
        stream.flush()
    return True


def test_what_a_full_disk_does_not_take_is_lost_and_no_more(tmp_path: Path) -> None:
    """A print, in PySyft or in user code, does not fail: the datasite goes on, and ends as it should."""
    assert in_a_worker(_print_onto_a_full_disk, tmp_path)


def test_every_process_of_a_worker_carries_its_mark(tmp_path: Path) -> None:
    """Forked ones hold the leash open, executed ones name it in their environment; SIGHUP does not end a worker."""
    told = in_a_worker(_marks, tmp_path)
    assert {"own": True, "forked": True, "executed": True, "hangup": True} == told


_LATE = """
import multiprocessing, os, select, sys
from multiprocessing import parent_process
from pathlib import Path

def late(folder):
    from fleet_common import failures, listening, logs, process
    {wait}
    process.become("fleet: late", folder / "work", folder / "late.log", state_dir=folder)
    (folder / "began").write_text("")
    os._exit(0)

if __name__ == "__main__":
    child = multiprocessing.get_context("forkserver").Process(target=late, args=(Path(sys.argv[1]),))
    child.start()
    os.set_inheritable(1, False)
    {end}
"""
"""A supervisor that asks its forkserver for a worker. The worker holds standard output open for as long as it lives."""


@pytest.mark.parametrize(
    ("wait", "end", "begins"),
    [
        ("select.select([parent_process().sentinel], [], [], 30)", "os._exit(0)", False),
        ("pass", "child.join()", True),
    ],
    ids=["its supervisor died before it was born", "its supervisor lives"],
)
def test_a_worker_whose_supervisor_is_gone_does_not_begin(tmp_path: Path, wait: str, end: str, begins: bool) -> None:
    """A forkserver that was busy with its imports serves a dead supervisor's launch late; nobody would know of it."""
    program = tmp_path / "late.py"
    program.write_text(_LATE.format(wait=wait, end=end))
    done = subprocess.run([sys.executable, program, tmp_path], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (done.returncode, done.stdout + done.stderr)
    assert (tmp_path / "leash").exists()
    assert begins is (tmp_path / "began").exists()


def test_what_is_forked_twice_stays_below_its_worker(tmp_path: Path) -> None:
    """An orphaned grandchild becomes the worker's own child."""
    assert in_a_worker(_double_fork, tmp_path) is True


def test_a_state_folder_serves_one_process(tmp_path: Path) -> None:
    """A second process is refused, and told who has it; the first may claim again."""
    process.claim(tmp_path)
    process.claim(tmp_path)
    second = "import sys, pathlib; from fleet_common import process; process.claim(pathlib.Path(sys.argv[1]))"
    run = subprocess.run(
        [sys.executable, "-c", second, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert f"{tmp_path} is in use by another process (pid {os.getpid()})" in run.stderr


def test_a_worker_joins_its_control_group(tmp_path: Path) -> None:
    """Its pid is written to ``cgroup.procs``; what went wrong is said, not raised; no group is no fault."""
    assert "" == process.join_cgroup(str(tmp_path))
    assert str(os.getpid()) == (tmp_path / "cgroup.procs").read_text()
    assert "No such file or directory" in process.join_cgroup(str(tmp_path / "none"))
    assert "" == process.join_cgroup("")


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1"])
def test_a_taken_port_is_told(hostname: str) -> None:
    """The holder is named with its pid."""
    held = listening.bind(hostname, 0)
    port = held.getsockname()[1]
    with held, pytest.raises(listening.PortTaken, match=f"port {port} is taken by pid {os.getpid()}"):
        listening.bind(hostname, port)


def test_an_address_that_cannot_be_had_is_told() -> None:
    """As a fault of the configuration, whatever is wrong with it."""
    for hostname, port in (("192.0.2.1", 1), ("localhost", 70000), ("no.such.host.invalid", 1)):
        with pytest.raises(failures.ConfigurationFailure, match=f"cannot listen on {hostname}:{port}: ."):
            listening.bind(hostname, port)


def _print_much(folder: Path) -> dict[str, Any]:
    raw = folder / "log" / "test.out"
    os.write(1, b"x" * (logs._BYTES + 5))
    logs.trim_output()
    os.write(1, b"after")
    logs.trim_output()
    return {"now": raw.read_bytes(), "aside": raw.with_name("test.out.1").stat().st_size == logs._BYTES}


def _print_much_where_nothing_can_be_moved(folder: Path) -> int:
    raw = folder / "log" / "test.out"
    raw.with_name("test.out.1").mkdir()
    os.write(1, b"x" * (logs._BYTES + 5))
    logs.trim_output()
    return raw.stat().st_size


def test_raw_output_is_cut_even_where_there_is_no_room_to_keep_it(tmp_path: Path) -> None:
    """A disk that prints have filled is just where it has to be cut."""
    assert 0 == in_a_worker(_print_much_where_nothing_can_be_moved, tmp_path)


def test_raw_output_stays_within_bounds(tmp_path: Path) -> None:
    """What user code prints is moved aside once it is too much, and goes on in the same file."""
    assert {"now": b"after", "aside": True} == in_a_worker(_print_much, tmp_path)


def _leave_much(_folder: Path) -> list[bool]:
    child = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    before = psutil.pid_exists(child.pid)
    process.end_descendants()
    child.wait(10)
    return [before, psutil.pid_exists(child.pid)]


def test_nothing_stays_behind_a_worker_that_ends(tmp_path: Path) -> None:
    """What user code started goes with it."""
    assert [True, False] == in_a_worker(_leave_much, tmp_path)
