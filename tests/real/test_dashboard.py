"""The dashboard as a process: what a kill costs, how it ends, how little it does when nothing happens."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet_tools.bench.beats import Crowd
from tests.real.dashboards import Dashboard, a_dashboard, a_factory, seed
from tests.real.harness import a_fleet, eventually


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Dashboard]:
    with a_dashboard(tmp_path) as made:
        yield made


def test_a_kill_loses_no_registration_and_at_most_a_second_of_beats(board: Dashboard) -> None:
    """SIGKILL in the middle of registrations: every one that was answered is there afterwards, and every beat that
    was answered a second before."""
    board.register("early")
    board.beat("early", cpu=77.0)
    written = time.monotonic() + 1.0
    with ThreadPoolExecutor(8) as several:
        asked = [several.submit(board.register, f"line_{number:03}") for number in range(300)]
        eventually(lambda: time.monotonic() > written and sum(one.done() for one in asked) > 50, 60.0)
        board.end(signal.SIGKILL)
        answered = [f"line_{number:03}" for number, one in enumerate(asked) if one.result()[0] == 200]
    board.start()
    factories = board.factories()
    assert [] == [name for name in answered if name not in factories]
    assert len(answered) > 50
    assert 77.0 == factories["early"]["load"]["cpu_usage"]
    assert "running" == factories["early"]["status"]


def seen(board: Dashboard, factory: str = "alpha") -> dict[str, int]:
    """What cannot be looked at, the page and the event stream included."""
    paths = ("/factories", f"/factories/{factory}", f"/factories/{factory}/history", "/healthz")
    codes = {path: board.ask(path)[0] for path in paths}
    for path, part in (("/", b"</html>"), ("/events", b"event: snapshot")):
        with socket.create_connection(("127.0.0.1", board.port), timeout=10) as reader:
            reader.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
            told = b""
            while part not in told and (more := reader.recv(65536)):
                told += more
        codes[path] = 200 if part in told else 500
    return {path: code for path, code in codes.items() if code != 200}


def test_no_number_in_a_beat_takes_the_list_away(board: Dashboard) -> None:
    """Whatever a stranger's beat tells of a known factory, all answers 200: at once, after SIGKILL and a restart."""
    numbers = (1e39, 1e300, -1e300, float("nan"), float("inf"), 10**400)
    names = [f"alpha-{at}" for at in range(len(numbers))]
    for name, number in zip(names, numbers, strict=True):
        board.register(name)
        board.beat(name, cpu=number)
        assert {} == seen(board, name)
    board.register("beta")
    board.beat("beta", cpu=55.0)
    written = time.monotonic() + 1.5  # a beat is on the disk within a second
    eventually(lambda: time.monotonic() > written, 10.0)
    board.end(signal.SIGKILL)
    board.start()
    assert {name: {} for name in names} == {name: seen(board, name) for name in names}
    assert 55.0 == board.factories()["beta"]["load"]["cpu_usage"]


def test_a_database_that_an_older_release_left_is_shown(tmp_path: Path) -> None:
    """With the numbers that broke the list, in the factory and in its minutes: unknown, and told in the log once."""
    now = int(time.time()) // 60 * 60
    seed(tmp_path / "dashboard.db", [a_factory("alpha"), a_factory("beta")])
    with closing(sqlite3.connect(tmp_path / "dashboard.db")) as connection, connection:
        connection.execute("UPDATE factories SET current_load = '{\"cpu_usage\": 1e300}' WHERE name = 'alpha'")
        connection.execute("UPDATE loads SET cpu = 1e300 WHERE name = 'alpha' AND at >= ?", (now - 600,))
    with a_dashboard(tmp_path) as board:
        for _ in range(2):
            assert {} == seen(board)
            board.end(signal.SIGKILL)
            board.start()
        factories = board.factories()
        assert (None, 40.0) == tuple(factories[name]["load"]["cpu_usage"] for name in ("alpha", "beta"))
        assert None not in factories["beta"]["recent_load"]["cpu"]
    console = (tmp_path / "console").read_text()
    assert "factory 'alpha': the database has an invalid current_load.cpu_usage" in console
    assert 3 == console.count("an invalid load.cpu")  # once in each of three lives


def test_a_stop_in_order_loses_nothing(board: Dashboard) -> None:
    """A beat that was answered just before SIGTERM is there afterwards; an open event stream holds nothing up."""
    board.register("alpha")
    with socket.create_connection(("127.0.0.1", board.port), timeout=10) as listener:
        listener.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
        assert b"200 OK" in listener.recv(4096)
        board.beat("alpha", cpu=66.0)
        began = time.monotonic()
        assert 0 == board.end(signal.SIGTERM)
        assert time.monotonic() - began < 5.0
    board.start()
    assert 66.0 == board.factories()["alpha"]["load"]["cpu_usage"]


def test_history_goes_on_across_a_kill(tmp_path: Path) -> None:
    """Offline, killed, back, a beat: the changes of both lives are told."""
    with a_dashboard(tmp_path, "--late-after", "0.3", "--offline-after", "0.6") as board:

        def changes() -> list[str]:
            return [change["status"] for change in board.ask("/factories/alpha/history")[1]["changes"]]

        board.register("alpha")
        eventually(lambda: changes()[0] == "offline", 30.0)
        board.end(signal.SIGKILL)
        board.start()
        assert "offline" == board.factories()["alpha"]["status"]
        before = changes()
        board.beat("alpha")
        eventually(lambda: len(changes()) > len(before), 30.0)
        assert ["offline", "running"] == [before[0], before[-1]]
        assert ["running", *before] == changes()[-len(before) - 1 :]


def test_the_load_of_the_bench_is_a_real_one(board: Dashboard) -> None:
    """Every factory of `scripts/bench dashboard` registers and beats, is listed, and is seen by a page that listens;
    a dashboard that is gone fails every beat of it."""
    crowd = Crowd(board.port, 20)

    async def load() -> Any:
        await crowd.register()
        async with crowd.watched(1, 1):
            first = await crowd.beat(1.0)
            second = await crowd.beat(1.0)
        return first, second

    first, second = asyncio.run(load())
    assert [(20, 0), (20, 0)] == [(len(seen.beats), seen.failed) for seen in (first, second)]
    assert len(first.shown) + len(second.shown) > 20
    assert first.lists
    assert {"running"} == {one["status"] for one in board.factories().values()}
    board.end(signal.SIGTERM)
    assert 20 == asyncio.run(crowd.beat(0.1)).failed


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "supervisor", "dashboard", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_what_an_operator_can_mend_is_told_in_words(board: Dashboard) -> None:
    """A taken port, a file in use, a folder that cannot be: 78 and one line, no traceback."""
    taken = run(board.folder, "--port", str(board.port), "--db", "other.db")
    in_use = run(board.folder, "--port", "0", "--db", str(board.database))
    nowhere = run(board.folder, "--port", "0", "--db", "/proc/none/x.db")
    assert [78, 78, 78] == [one.returncode for one in (taken, in_use, nowhere)]
    for one, words in (
        (taken, "is taken by"),
        (in_use, "another dashboard uses the database"),
        (nowhere, "cannot use the dashboard's database"),
    ):
        assert words in one.stderr
        assert 1 == len(one.stderr.strip().splitlines())


def test_a_dashboard_that_is_left_alone_does_next_to_nothing(tmp_path: Path) -> None:
    """Three factories and a page that listens: under 1 % of a core."""
    with a_dashboard(tmp_path, seeded=[a_factory(name) for name in ("a", "b", "c")]) as board:
        assert board.process is not None
        with socket.create_connection(("127.0.0.1", board.port), timeout=10) as listener:
            listener.sendall(b"GET /events HTTP/1.1\r\nhost: x\r\n\r\n")
            eventually(lambda: b"snapshot" in listener.recv(65536), 10.0)
            process = psutil.Process(board.process.pid)
            spent, began = sum(process.cpu_times()[:2]), time.monotonic()
            switched = process.num_ctx_switches().voluntary
            eventually(lambda: time.monotonic() - began > 10.0, 30.0)
            assert sum(process.cpu_times()[:2]) - spent < 0.1
            assert process.num_ctx_switches().voluntary - switched < 60


def test_a_fleet_tells_its_region_and_place(tmp_path: Path) -> None:
    """Real datasites, the embedded dashboard: `region:` and `location:` of fleet.yaml arrive, also after a reload."""
    with a_fleet(tmp_path, extra=", region: Michigan, location: Hall 3") as fleet:
        board = Dashboard(tmp_path)
        board.url = f"http://127.0.0.1:{fleet.dashboard}"
        eventually(lambda: set(board.factories()) == {"alpha", "beta"}, 60.0)
        assert [("Michigan", "Hall 3")] * 2 == [(one["region"], one["location"]) for one in board.factories().values()]
        fleet.extra = ", region: Ohio"
        fleet.write()
        assert 0 == fleet.run("reload").returncode
        eventually(lambda: {("Ohio", "")} == {(one["region"], one["location"]) for one in board.factories().values()})
        assert "running" == board.factories()["alpha"]["status"]


def test_ctrl_c_while_it_loads_is_no_traceback(tmp_path: Path) -> None:
    """Loading takes a second; an operator who changed their mind sees nothing of it."""
    command = [sys.executable, "-X", "importtime", "-m", "central.dashboard", "--port", "0", "--db", "x.db"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        eventually(lambda: "sqlalchemy" in (process.stderr.readline() if process.stderr else ""), 60.0)
        os.kill(process.pid, signal.SIGINT)
        told = process.stderr.read()
        assert 0 == process.wait(30)
    assert "Traceback" not in told
