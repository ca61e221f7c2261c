"""The main promise, with real PySyft, real SIGKILLs and the real command line."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.real.harness import Fleet, answers, eventually


def test_status_answers_with_the_five_fields(fleet: Fleet) -> None:
    """``GET /factory.status`` names the line and how it is."""
    told = answers(fleet.alpha) or {}
    assert ("alpha", "localhost", fleet.alpha, "cpu", "running") == tuple(
        told[key] for key in ("factory_name", "factory_hostname", "factory_port", "device", "status")
    )


def test_every_line_registers_and_beats(fleet: Fleet) -> None:
    """The embedded dashboard lists both, running."""
    eventually(lambda: all(line["registered"] and line["last_heartbeat"] for line in fleet.status()["datasites"]))
    with urllib.request.urlopen(f"http://127.0.0.1:{fleet.dashboard}/factories", timeout=5) as answer:
        factories = json.load(answer)["factories"]
    assert [("alpha", "running"), ("beta", "running")] == sorted(
        (one["factory_name"], one["status"]) for one in factories
    )


def test_the_well_known_login_never_works(fleet: Fleet) -> None:
    """No default password."""
    import syft as sy

    with pytest.raises(Exception, match=r"(?i)password|credential|user|login|not found"):
        sy.login(url="http://127.0.0.1", port=fleet.alpha, email="info@openmined.org", password="changethis")


def test_sigkill_loses_nothing(fleet: Fleet) -> None:
    """After SIGKILL the line is back, and the same client object reads the same data; its neighbour notices nothing."""
    import syft as sy

    client = fleet.login("beta", fleet.beta)
    data = np.arange(12.0)
    client.upload_dataset(sy.Dataset(name="vibration", asset_list=[sy.Asset(name="x", data=data, mock=data * 0)]))
    before, neighbour = fleet.line("beta"), fleet.line("alpha")
    os.kill(before["pid"], signal.SIGKILL)
    back = eventually(lambda: (told := answers(fleet.beta)) and told["pid"] != before["pid"] and told)
    assert before["generation"] + 1 == back["generation"]
    assert data.tolist() == np.asarray(client.datasets[0].assets[0].data).tolist()
    after = eventually(lambda: (line := fleet.line("beta"))["ready"] and line)
    assert (before["restarts"] + 1, "SIGKILL") == (after["restarts"], after["last_exit"])
    assert neighbour["pid"] == fleet.line("alpha")["pid"]


def test_a_restart_asked_for_counts_as_none(fleet: Fleet) -> None:
    """``fleet restart`` brings a new process, and the restart counter stays."""
    before = fleet.line("alpha")
    assert 0 == fleet.run("restart", "alpha").returncode
    after = fleet.line("alpha")
    assert (before["restarts"], True) == (after["restarts"], after["ready"])
    assert before["pid"] != after["pid"]


def test_a_second_supervisor_is_refused(fleet: Fleet) -> None:
    """It names the pid of the first."""
    second = fleet.run("up", "--detach", "--timeout", "20")
    assert 5 == second.returncode
    assert str(fleet.status()["supervisor"]["pid"]) in second.stdout + second.stderr


@pytest.mark.slow
def test_a_killed_supervisor_leaves_datasites_that_the_next_one_adopts(fleet: Fleet) -> None:
    """The lines serve on; the next ``fleet up`` goes on with the very same processes."""
    before = {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    os.kill(fleet.status()["supervisor"]["pid"], signal.SIGKILL)
    assert 3 == eventually(lambda: (run := fleet.run("status")).returncode == 3 and run).returncode
    assert answers(fleet.alpha) is not None
    assert 0 == fleet.run("up", "--detach", "--timeout", "60").returncode
    assert before == {line["name"]: line["pid"] for line in fleet.status()["datasites"]}
    os.kill(before["alpha"], signal.SIGKILL)
    assert eventually(lambda: (line := fleet.line("alpha"))["ready"] and line["pid"] != before["alpha"])


def test_a_taken_port_is_named_and_only_that_line_waits(tmp_path: Path) -> None:
    """Quarantined at once, with the reason; not retried blindly."""
    made = Fleet(tmp_path)
    with socket.create_server(("127.0.0.1", made.beta)):
        up = made.run("up", "--detach", "--timeout", "80")
        try:
            assert 1 == up.returncode
            assert ("quarantined", 0) == (made.line("beta")["state"], made.line("beta")["restarts"])
            assert f"port {made.beta} is taken by" in made.line("beta")["reason"]
            assert made.line("alpha")["ready"] is True
        finally:
            made.down()


class Traced:
    """What a process does to files, and when: strace tells."""

    CALLS = "trace=openat,write,pwrite64,ftruncate,fsync,fdatasync,close"

    def __init__(self, pid: int, into: Path) -> None:
        self._into = into
        words = ["strace", "-f", "-qq", "-y", "-ttt", "-T", "-e", self.CALLS, "-p", str(pid), "-o", str(into)]
        self._process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        eventually(lambda: self._traced(pid))

    def _traced(self, pid: int) -> bool:
        assert None is self._process.poll(), "strace cannot trace here"
        tasks = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
        return all(f"TracerPid:\t{self._process.pid}\n" in task for task in tasks)

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(20)

    def unflushed(self, folder: Path, began: float, ended: float) -> tuple[set[str], int]:
        """The files below ``folder`` that were written in that time and not flushed after it; and how many flushes."""
        dirty, flushes = set[str](), 0
        for line in self._into.read_text(errors="replace").splitlines():
            found = re.match(r"\d+ +(\d+\.\d+) (\w+)\(\d+<([^>]+)>", line)
            if found is None or not began <= float(found[1]) <= ended or not Path(found[3]).is_relative_to(folder):
                continue
            if found[2] in ("fsync", "fdatasync"):
                dirty.discard(found[3])
                flushes += 1
            elif found[2] in ("write", "pwrite64") and not found[3].endswith("-shm"):
                dirty.add(found[3])
        return dirty, flushes


@pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace")
def test_what_is_acknowledged_is_on_the_disk(fleet: Fleet, tmp_path: Path) -> None:
    """When a client has its answer, nothing that the datasite has written for it waits in the kernel: neither the
    database's log nor a large array's file."""
    import syft as sy

    client = fleet.login("alpha", fleet.alpha)
    large = np.arange(3_000_000.0)  # 24 MB: PySyft stores it in a file
    traced, spans = Traced(fleet.line("alpha")["pid"], tmp_path / "strace"), []
    try:
        for number, data in enumerate([np.arange(9.0), np.arange(8.0), large]):
            began = time.time()
            asset = sy.Asset(name="x", data=data, mock=data * 0)
            client.upload_dataset(sy.Dataset(name=f"flushed {number}", asset_list=[asset]))
            spans.append((began, time.time()))
    finally:
        traced.end()
    found = [traced.unflushed(fleet.state("alpha") / "syft", *span) for span in spans]
    assert [set()] * 3 == [dirty for dirty, _ in found]
    assert all(flushes > 0 for _, flushes in found)
    written = (tmp_path / "strace").read_text(errors="replace")
    assert re.search(r"fsync\(\d+<[^>]*/syft/[^>]*>\) += 0", written), "no file beside the database was flushed"


def test_lost_doors_and_logs_come_back(fleet: Fleet) -> None:
    """Commands work again within seconds after somebody has removed the sockets, and a new log has the next line."""
    state, before = fleet.state_folder, fleet.line("alpha")["pid"]
    for path in (state.control_socket, state.pulse_socket, state.lock):
        path.unlink()
    shutil.rmtree(fleet.folder / "logs")
    assert 0 == fleet.run("status").returncode
    assert before == fleet.line("alpha")["pid"]
    second = fleet.run("up", "--detach", "--timeout", "20")
    assert (5, before) == (second.returncode, fleet.line("alpha")["pid"]), second.stderr
    eventually(lambda: state.pulse_socket.exists() and state.lock.exists())
    assert "made again" in fleet.log("fleet")
    fleet.must("restart", "alpha")
    assert fleet.line("alpha")["ready"]
