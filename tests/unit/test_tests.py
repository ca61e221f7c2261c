"""What tests beside each other rely on: turns, and ports of their own."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fleet_tools import ports
from tests.real.harness import eventually
from tests.turns import Turns


def _is_held(folder: Path) -> bool:
    """Whether somebody stands in the gate."""
    with (folder / "gate").open("w") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_who_is_to_be_alone_waits_for_those_inside_and_lets_nobody_in(tmp_path: Path) -> None:
    """The one inside ends; then the one alone runs and ends; then the one who came last runs."""
    order: list[str] = []

    def alone() -> None:
        with Turns(tmp_path).alone():
            order.append("alone")

    def late() -> None:
        with Turns(tmp_path).beside():
            order.append("late")

    first, last = threading.Thread(target=alone), threading.Thread(target=late)
    with Turns(tmp_path).beside():
        first.start()
        eventually(lambda: _is_held(tmp_path), 10.0)
        last.start()
        order.append("inside")
    first.join(10.0)
    last.join(10.0)
    assert ["inside", "alone", "late"] == order


def test_any_number_runs_beside_each_other(tmp_path: Path) -> None:
    """A second one does not wait for the first."""
    with Turns(tmp_path).beside(), Turns(tmp_path).beside():
        assert not _is_held(tmp_path)


def test_ports_are_handed_out_once_and_below_the_kernels_own() -> None:
    """Else the next who asks, or an outgoing connection, could have the same one."""
    asked = ports.free_ports(3) + ports.free_ports(3)
    assert 6 == len(set(asked))
    assert max(asked) < int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


def test_a_port_in_use_is_passed_over() -> None:
    """Whoever has it, on whatever address."""
    block = ports.Block()
    (taken,) = block.ports(1)
    with socket.create_server(("127.0.0.1", taken + 1)):
        assert [taken + 2] == block.ports(1)


@pytest.mark.process
def test_two_processes_have_blocks_of_their_own(tmp_path: Path) -> None:
    """The other one's lowest port is none of ours, and the other way round."""
    program = "from fleet_tools.ports import SIZE, free_ports; print(free_ports(1)[0] // SIZE)"
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert int(other.stdout) != ports.free_ports(1)[0] // ports.SIZE


@pytest.mark.process
@pytest.mark.parametrize(("words", "expected"), [((), ["quick"]), (("--slow",), ["dear"])])
def test_one_tier_runs(tmp_path: Path, words: tuple[str, ...], expected: list[str]) -> None:
    """The usual one, or the slow one; never both, and never neither."""
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_quick(): print('ran quick')\n@pytest.mark.slow\ndef test_dear(): print('ran dear')\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-s", "-c"]
    command += [str(root / "pyproject.toml"), f"--rootdir={tmp_path}", str(tmp_path), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env={**os.environ})
    assert 0 == done.returncode, done.stdout + done.stderr
    assert [f"ran {name}" for name in expected] == [word for word in ("ran quick", "ran dear") if word in done.stdout]
