"""The limits of all lines together, hit by two real ones: a disk that fills up, uploads at the same time, trainings that
wait, memory and CPU of user code in both.

On a machine that delegates no control group, so memory and CPU are watched.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from fleet_tools.temporary_fleet import brought_up
from supervisor.policy import limits
from tests.real.harness import Fleet, answers, eventually
from tests.real.test_limits import (
    KEEP_MB,
    MB,
    burn_two_cores,
    hold_memory,
    limited,
    queue,
    run_inside,
    small_disk,
    told,
    upload,
    wait_for_file,
)

MEMORY_GB = 1.1
MBIT = 64.0


class HostFleet(Fleet):
    """No line has a limit of its own."""

    host = (
        f"{{disk_space_threshold_gb: {KEEP_MB / 1000}, network_bandwidth_limit_mbps: {MBIT:g},"
        f" max_concurrent_training_sessions: 2, max_memory_usage_gb: {MEMORY_GB}}}"
    )

    def write(self) -> None:
        super().write()
        self.file.write_text(f"{self.file.read_text()}host: {self.host}\n")

    def reload(self, host: str) -> None:
        self.host = host
        self.write()
        done = self.run("reload")
        assert 0 == done.returncode, done.stdout + done.stderr

    @property
    def lines(self) -> dict[str, int]:
        return {"alpha": self.alpha, "beta": self.beta}

    def of_host(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.status()["host"]
        return shown


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostFleet]:
    folder = tmp_path_factory.mktemp("host")
    with small_disk(folder / ".fleet"), brought_up(HostFleet(folder)) as made:
        yield made


def of_both(fleet: HostFleet, limit: str) -> bool:
    return all(limit in limited(fleet, name) for name in fleet.lines)


@pytest.mark.slow
def test_the_disk_is_everybodys(fleet: HostFleet) -> None:
    """Below the host's threshold every line refuses uploads, and says so; with room again every line takes them."""
    filler = fleet.folder / ".fleet" / "filler"
    filler.write_bytes(b"\0" * (psutil.disk_usage(str(filler.parent)).free - (KEEP_MB - 5) * MB))
    for name, port in fleet.lines.items():
        with pytest.raises(Exception, match=r"disk is nearly full: .* are free, and 0\.06 GB must stay free"):
            upload(fleet.login(name, port), "during", 1)
    eventually(lambda: of_both(fleet, "disk"), 30.0)
    filler.unlink()
    for name, port in fleet.lines.items():
        upload(fleet.login(name, port), "after", 1)
        eventually(partial(told, fleet, name, "limit_cleared", "disk"), 30.0)
    assert [1, 1] == [len(told(fleet, name, "limit_reached", "disk")) for name in fleet.lines]


@pytest.mark.slow
def test_bandwidth_is_shared_out_evenly(fleet: HostFleet) -> None:
    """Two uploads at the same time: neither is faster than half, and both lines tell that they are held back."""
    size, took = 14, {}

    def send(name: str, client: Any) -> None:
        began = time.monotonic()
        upload(client, "wide", size)
        took[name] = time.monotonic() - began

    threads = [threading.Thread(target=send, args=(name, fleet.login(name, at))) for name, at in fleet.lines.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    half = MBIT / 8 / 2  # MB a second
    assert [True, True] == [seconds >= size / half - 1.0 for seconds in took.values()]
    eventually(lambda: of_both(fleet, "bandwidth"), 30.0)
    assert {"HTTP is limited to 32 Mbit/s"} == {limited(fleet, name)["bandwidth"] for name in fleet.lines}
    assert all(told(fleet, name, "limit_reached", "bandwidth") for name in fleet.lines)


@pytest.mark.slow
def test_training_sessions_are_shared_out_evenly(fleet: HostFleet, tmp_path: Path) -> None:
    """Of the two for all, each line has one; its second training waits, and that is told of both lines."""
    places = [{"place": f"{tmp_path}/{number}"} for number in range(2)]
    for name, port in fleet.lines.items():
        queue(fleet.login(name, port), wait_for_file, places)
    eventually(lambda: of_both(fleet, "training_sessions"))
    words = "1 training runs, 1 waits: at most 1 may run at the same time"
    eventually(lambda: {words} == {limited(fleet, name).get("training_sessions") for name in fleet.lines})
    assert [["wait_for_file"]] * 2 == [fleet.line(name)["active_experiments"] for name in fleet.lines]
    assert [1, 1] == [len(told(fleet, name, "limit_reached", "training_sessions")) for name in fleet.lines]
    for place in places:
        Path(place["place"]).touch()
    eventually(lambda: not any(fleet.line(name)["active_experiments"] for name in fleet.lines))


@pytest.fixture(scope="module")
def busy(fleet: HostFleet) -> None:
    """User code computes in beta from now on, and a reload has just brought a limit of CPU."""
    fleet.reload(f"{{max_memory_usage_gb: {MEMORY_GB}, max_cpu_usage_percent: 20}}")
    run_inside(fleet.login("beta", fleet.beta), burn_two_cores)


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
def test_the_biggest_goes_when_all_together_take_too_much_memory(fleet: HostFleet) -> None:
    """Told of the fleet, and after three looks the biggest is restarted with its cause; the other is at work, and works
    on."""
    before, neighbour = fleet.line("alpha"), fleet.line("beta")
    assert "watch" == fleet.of_host()["enforced"] == before["enforced"]
    run_inside(fleet.login("alpha", fleet.alpha), hold_memory)
    eventually(lambda: "host_memory" in limited(fleet, "beta"), 90.0)
    assert "all datasites together use" in fleet.of_host()["limited"]["host_memory"]
    assert f"of {MEMORY_GB:g} GB of memory" in fleet.run("status").stdout
    back = eventually(lambda: (line := fleet.line("alpha"))["ready"] and line["pid"] != before["pid"] and line)
    assert ({"memory_limit": 1}, 1) == (back["restarts_by_cause"], back["restarts"] - before["restarts"])
    assert back["last_exit"].startswith("memory limit: this datasite is the largest; all datasites together use ")
    assert [1, 1] == [
        len(told(fleet, *words))
        for words in (("fleet", "limit_reached", "host_memory"), ("alpha", "stopping", "memory_limit"))
    ]
    eventually(lambda: told(fleet, "fleet", "limit_cleared", "host_memory"), limits.PERIOD * 3)
    assert (neighbour["pid"], 0, {}) == ((now := fleet.line("beta"))["pid"], now["restarts"], now["near_limits"])
    assert answers(fleet.beta)


@pytest.mark.slow
@pytest.mark.usefixtures("busy")
@pytest.mark.alone
def test_all_lines_together_compute_on_the_hosts_cores(fleet: HostFleet) -> None:
    """Two threads of user code in each of two lines, and one core that the host's 20 % round up to: they share it, that
    is told of the fleet, and without the limit they are free again; no line is restarted for it."""
    before = {name: fleet.line(name)["pid"] for name in fleet.lines}
    run_inside(fleet.login("alpha", fleet.alpha), burn_two_cores)
    eventually(lambda: all(fleet.line(name)["active_experiments"] == ["burn_two_cores"] for name in fleet.lines))
    eventually(lambda: of_both(fleet, "host_cpu"), limits.PERIOD * (limits.LOOKS + 6))
    busy = [psutil.Process(pid) for pid in before.values()]
    spent, at = sum(sum(one.cpu_times()[:2]) for one in busy), time.monotonic()
    eventually(lambda: time.monotonic() - at > 5.0)
    share = 100 * (sum(sum(one.cpu_times()[:2]) for one in busy) - spent) / (time.monotonic() - at)
    assert 20.0 < share <= 110.0
    if len(os.sched_getaffinity(0)) > 1:
        assert 1 == len({frozenset(os.sched_getaffinity(pid)) for pid in before.values()})
        assert {1} == {len(os.sched_getaffinity(pid)) for pid in before.values()}
    assert 1 == len(told(fleet, "fleet", "limit_reached", "host_cpu"))
    fleet.reload("{}")
    eventually(lambda: told(fleet, "fleet", "limit_cleared", "host_cpu"), limits.PERIOD * 3)
    assert os.sched_getaffinity(0) == os.sched_getaffinity(before["alpha"]) == os.sched_getaffinity(before["beta"])
    assert {} == fleet.of_host()["limits"] == limited(fleet, "alpha")
    assert before == {name: fleet.line(name)["pid"] for name in fleet.lines}
