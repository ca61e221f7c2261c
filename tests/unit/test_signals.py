"""A signal reaches the process it was meant for, or nobody. What could hit the wrong one runs in a PID namespace of its
own, where the whole world is the test's."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_common import signals

ROOT = Path(__file__).parents[2]
ALONE = ("unshare", "-pf", "--mount-proc", "--kill-child")
SENDERS = {"kill", "killpg", "pidfd_send_signal", "send_signal", "tgkill", "pthread_kill"}


def calls(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SENDERS:
            yield ast.unparse(node.func)


def test_one_file_sends_signals() -> None:
    """Whoever wants to end a process asks it, and it checks which process that is."""
    packages = ("fleet_common", "supervisor", "datasite_worker", "central")
    files = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    found = {str(path.relative_to(ROOT)): sorted(calls(path)) for path in files if path.name != "signals.py"}
    asked = {path: names for path, names in found.items() if names}
    # These ask for the end of a job or of the fleet, and are no calls of the system.
    assert {
        "datasite_worker/jobs/queue.py": ["self._zygote.kill"],
        "supervisor/engine.py": ["hands.kill"],
    } == asked


WORLD = """
import os, signal, subprocess, sys
from fleet_common import signals
bystander = subprocess.Popen(["sleep", "600"])
apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
for pid in (True, False, 1, 0, -1, -2, "12", None, 1.5, 10**20, os.getpid(), os.getpgrp(), 99999):
    for created in (0, 1, signals.start_ticks(1), signals.start_ticks(os.getpid())):
        assert not signals.send(pid, created, signal.SIGKILL), pid
        assert not signals.send_group(pid, created, signal.SIGKILL), pid
        signals.sweep_group(pid, created)
    assert not signals.to_child(pid, signal.SIGKILL), pid
    assert not signals.to_childs_group(pid, signal.SIGKILL), pid
began = signals.start_ticks(bystander.pid)
for created in (0, began - 1, began + 1):
    assert not signals.send(bystander.pid, created, signal.SIGKILL)
    assert not signals.send_group(apart.pid, created, signal.SIGKILL)
    signals.sweep_group(apart.pid, created)
assert [None, None] == [bystander.poll(), apart.poll()]
assert signals.send(bystander.pid, began, signal.SIGKILL) and bystander.wait() == -9
print("survived")
"""


@pytest.mark.process
def test_no_wrong_number_ever_reaches_a_process() -> None:
    """Not init, not everybody, not ourselves, and not who has the number now."""
    done = subprocess.run(
        [*ALONE, "sh", "-c", '"$0" -c "$1"; true', sys.executable, WORLD],
        check=False, capture_output=True, text=True, timeout=60, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "unshare:" in done.stderr:
        pytest.skip(f"no namespace can be made here: {done.stderr.strip()}")
    assert "survived\n" == done.stdout, done.stderr


FORKING = "import os,time; os.fork(); print('x', flush=True); time.sleep(600)"


@pytest.mark.process
def test_what_a_dead_leader_left_in_its_group_is_swept() -> None:
    """It may hold the leader's port. What began before the leader is not its own."""
    leader = subprocess.Popen([sys.executable, "-c", FORKING], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    with leader.stdout as said:
        said.readline(), said.readline()
        created = signals.start_ticks(leader.pid) or 0
        assert signals.to_child(leader.pid, signal.SIGKILL)
        leader.wait()
        signals.sweep_group(leader.pid, created + 1000)
        os.killpg(leader.pid, 0)  # raises when nobody is left
        signals.sweep_group(leader.pid, created)
        assert b"" == said.read()  # the pipe ends when the last of the group is gone


@pytest.mark.process
def test_a_child_is_ours_until_its_end_is_collected() -> None:
    """Only so long its number cannot be another's."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    assert signals.to_childs_group(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert signals.to_child(child.pid, signal.SIGKILL)
    child.wait()
    assert not signals.to_child(child.pid, signal.SIGKILL)
