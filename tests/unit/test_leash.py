"""What a dead worker left behind is found by its leash and ended; nobody else is touched. Real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_common.contract import LEASH_VARIABLE
from fleet_common.signals import is_same, start_ticks
from supervisor.effects.leash import bearers, sweep

pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")]
"""A look at every process must leave no descriptor behind."""

ESCAPED = """
import os, sys, time
held = os.open(sys.argv[1], os.O_RDONLY)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
"""
"""Leaves its group, its session and its parent; keeps the leash open."""
MARKED = "import os,time; os.closerange(3, 99); print(os.getpid(), flush=True); time.sleep(600)"
"""Was executed with the leash in its environment; keeps nothing open."""


@pytest.fixture
def leash(tmp_path: Path) -> Path:
    path = tmp_path / "alpha" / "leash"
    path.parent.mkdir()
    path.touch()
    return path


@pytest.fixture
def born() -> Iterator[list[int]]:
    """Pids that a test has had made, ended whatever comes of it."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        if start_ticks(pid) is not None:
            os.kill(pid, signal.SIGKILL)


def begin(born: list[int], program: str, *arguments: object, **environment: str) -> int:
    command = [sys.executable, "-S", "-c", program, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **environment}, start_new_session=True)
    assert child.stdout is not None
    with child.stdout as said:
        pid = int(said.readline())
    born.append(pid)
    if pid != child.pid:
        child.wait()
    else:
        child.returncode = 0  # a test's own child: whoever kills it, the fixture below waits for it
    return pid


@pytest.fixture(autouse=True)
def reaped(born: list[int]) -> Iterator[None]:
    yield
    for pid in born:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


def living(pid: int, created: int | None) -> bool:
    return created is not None and is_same(pid, created)


def test_exactly_the_bearers_are_killed_and_waited_for(leash: Path, born: list[int]) -> None:
    """One that has the leash open and escaped, one that only names it; not another line's, not a stranger."""
    other = leash.parent.parent / "beta" / "leash"
    other.parent.mkdir()
    other.touch()
    escaped = begin(born, ESCAPED, leash)
    marked = begin(born, MARKED, **{LEASH_VARIABLE: str(leash)})
    stranger = begin(born, MARKED)
    neighbour = begin(born, MARKED, **{LEASH_VARIABLE: str(other)})
    near = begin(born, MARKED, **{LEASH_VARIABLE: f"{leash}2"})
    created = {pid: start_ticks(pid) for pid in born}
    assert {escaped, marked} == set(bearers(leash))
    assert 2 == sweep(leash)
    assert [False, False, True, True, True] == [
        living(pid, created[pid]) for pid in (escaped, marked, stranger, neighbour, near)
    ]
    assert ([], 0) == (bearers(leash), sweep(leash))


def test_a_successor_with_the_same_leash_is_not_touched(leash: Path, born: list[int]) -> None:
    """``since`` is when the dead one began: what began before it, a predecessor's, is somebody else's affair."""
    older = begin(born, MARKED, **{LEASH_VARIABLE: str(leash)})
    created = start_ticks(older)
    assert created is not None
    assert ([older], []) == (bearers(leash, created), bearers(leash, created + 1))
    assert 0 == sweep(leash, created + 1)
    assert living(older, created)


def test_we_ourselves_are_never_swept(leash: Path) -> None:
    """A supervisor that has a leash open, to look at it say, does not end itself."""
    with leash.open():
        assert (0, []) == (sweep(leash), bearers(leash))


def test_a_leash_that_was_removed_is_still_one(leash: Path, born: list[int]) -> None:
    """User code may delete files in its folder; the name in the environment still tells."""
    marked = begin(born, MARKED, **{LEASH_VARIABLE: str(leash)})
    leash.unlink()
    assert ([marked], 1) == (bearers(leash), sweep(leash))
