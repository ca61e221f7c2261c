"""What a run of our tools starts does not outlive the run, whatever ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from fleet_tools.processes import alive
from fleet_tools.waiting import until

pytestmark = pytest.mark.process

RUN = """
import subprocess, sys
from fleet_tools.room import room

remains = []
with room("kept", remains) as folder:
    child = subprocess.Popen(["sleep", "600"], cwd=folder, start_new_session=True)
    print(child.pid, folder, flush=True)
    {then}
"""
WAIT = "sys.stdin.read()"


def _run(then: str) -> tuple[subprocess.Popen[str], int, Path]:
    command = [sys.executable, "-P", "-c", RUN.format(then=then)]
    run = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    pid, folder = run.stdout.readline().split()
    return run, int(pid), Path(folder)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing(number: signal.Signals) -> None:
    """Neither a process, in a session of its own though it be, nor its folder."""
    run, pid, folder = _run(WAIT)
    with run:
        assert alive(pid)
        run.send_signal(number)
        assert 0 != run.wait(30)
    until(lambda: not alive(pid) and not folder.exists(), 30.0, "the end of what the run started")


def test_a_run_that_ends_in_order_needs_nobody() -> None:
    """The process that would clean up ends with it."""
    run, pid, folder = _run(WAIT)
    (keeper,) = [one for one in psutil.Process(run.pid).children() if one.pid != pid]
    run.communicate("", timeout=30)
    assert (0, False, False) == (run.returncode, alive(pid), folder.exists())
    assert not alive(keeper.pid)
