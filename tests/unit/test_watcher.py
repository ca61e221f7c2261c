"""The watcher on real processes: what they take is found, once told near a limit, and cores are really bound."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from supervisor.effects.board import Pinned
from supervisor.effects.cgroups import Cgroups, Usage
from supervisor.effects.watcher import Watcher
from supervisor.facts import LoadSeen
from supervisor.policy import limits
from supervisor.record import WorkerRecord, WorkerState
from supervisor.spec import DatasiteSpec, FleetConfig, HostLimits, Resources
from tests.unit.fakes import fleet

MB = 10**6
GREEDY = "x = bytearray(b'1' * {megabytes} * 10**6); print('ready', flush=True); input()"
PARENT = "import subprocess, sys; print('ready', flush=True); subprocess.run([sys.executable, '-S', '-c', sys.argv[1]])"
BUSY = "print('ready', flush=True)\nwhile True: pass"
Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """Real processes, told by what they do; their output ``ready`` says that they are at it."""
    started: list[subprocess.Popen[str]] = []

    def begin(code: str, *words: str, ready: int = 1) -> int:
        command = [sys.executable, "-S", "-c", code, *words]
        made = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
        started.append(made)
        assert made.stdout is not None
        assert ["ready\n"] * ready == [made.stdout.readline() for _ in range(ready)]
        return made.pid

    yield begin
    for made in started:
        for child in psutil.Process(made.pid).children(recursive=True):
            child.kill()
        made.kill()
        made.communicate()


def line(name: str = "alpha", **resources: Any) -> DatasiteSpec:
    return DatasiteSpec(name, 8080, resources=Resources(**resources))


class Watch:
    """A watcher that looks when a test says so, ten seconds apart, and no thread of its own meanwhile."""

    def __init__(self, config: FleetConfig, pids: dict[str, int], cgroups: Cgroups | None = None) -> None:
        self.config = config
        self.records = {
            name: WorkerRecord(name, state=WorkerState.READY, generation=3, pid=pid) for name, pid in pids.items()
        }
        self.told: list[LoadSeen] = []
        self.watcher = Watcher(lambda: Pinned(config), cgroups or Cgroups(None), self.told.append, 3600.0)
        self.watcher.close()
        self.now = 100.0

    def look(self) -> list[LoadSeen]:
        self.told.clear()
        self.watcher.look(self.config, self.records, self.now)
        self.now += 10.0
        return list(self.told)


def test_a_line_without_limits_is_never_looked_at(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it takes; not even the processes of this machine are listed."""
    watch = Watch(fleet(line()), {"alpha": start(GREEDY.format(megabytes=10))})
    monkeypatch.setattr(psutil, "pids", lambda: pytest.fail("listed the processes"))
    assert [] == watch.look()


def test_memory_is_the_lines_own_and_its_childrens(start: Start) -> None:
    """A parent that takes next to nothing, and a child of 150 MB: 150 MB and little more, over a limit of 100."""
    pid = start(PARENT, GREEDY.format(megabytes=150), ready=2)
    watch = Watch(fleet(line(max_memory_usage_gb=0.1)), {"alpha": pid})
    (first,) = watch.look()
    (second,) = watch.look()
    assert ("alpha", 3, 100 * MB, 1, 2) == (
        first.name,
        first.generation,
        first.load.memory_limit,
        first.load.memory_looks,
        second.load.memory_looks,
    )
    assert 150 * MB < first.load.memory < 200 * MB
    assert not first.load.kernel


def test_what_is_far_from_its_limit_is_not_told(start: Start) -> None:
    """No fact at all, look after look; nor is it weighed exactly."""
    watch = Watch(fleet(line(max_memory_usage_gb=1.0)), {"alpha": start(GREEDY.format(megabytes=10))})
    assert [[], [], []] == [watch.look() for _ in range(3)]


def test_a_line_that_is_well_again_is_told_once(start: Start) -> None:
    """So that the warning can be taken back."""
    watch = Watch(fleet(line(max_memory_usage_gb=0.05)), {"alpha": start(GREEDY.format(megabytes=60))})
    assert 1 == len(watch.look())
    watch.config = fleet(line(max_memory_usage_gb=1.0))
    assert [1, 0] == [len(watch.look()) for _ in range(2)]


def test_cpu_is_counted_between_looks(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy process is at its limit of one percent in every look but the first, which has nothing to compare with."""
    pid = start(BUSY)
    watch = Watch(fleet(line(max_cpu_usage_percent=1.0)), {"alpha": pid})
    looks = []
    for _ in range(limits.LOOKS + 1):
        spent = sum(psutil.Process(pid).cpu_times()[:2])
        while sum(psutil.Process(pid).cpu_times()[:2]) < spent + 0.15:
            os.sched_yield()
        looks.append(watch.look())
    assert [0] * limits.LOOKS + [1] == list(map(len, looks))
    assert limits.LOOKS == looks[-1][0].load.cpu_looks
    assert looks[-1][0].load.cpu > 1.0


def test_a_cpu_limit_binds_every_thread_and_child_to_its_cores(start: Start) -> None:
    """100 % is one core; the limit lifted, all are free again."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core can be bound to nothing less")
    pid = start(PARENT, GREEDY.format(megabytes=1), ready=2)
    (child,) = psutil.Process(pid).children()
    watch = Watch(fleet(line(max_cpu_usage_percent=100.0)), {"alpha": pid})
    watch.look()
    expected = limits.cores_for("alpha", 100.0, sorted(allowed))
    assert [expected, expected] == [os.sched_getaffinity(one) for one in (pid, child.pid)]
    os.sched_setaffinity(child.pid, allowed)  # as user code may
    watch.look()
    assert expected == os.sched_getaffinity(child.pid)
    watch.config = fleet(line(max_cpu_usage_percent=0.0, max_memory_usage_gb=1.0))
    watch.look()
    assert [allowed, allowed] == [os.sched_getaffinity(one) for one in (pid, child.pid)]


def test_all_lines_together(start: Start) -> None:
    """The host's limit is told of the biggest, with everybody's figures; the others hear nothing."""
    pids = {name: start(GREEDY.format(megabytes=size)) for name, size in (("alpha", 30), ("beta", 60))}
    config = fleet(line(), line("beta"), host=HostLimits(max_memory_usage_gb=0.08))
    watch = Watch(config, pids)
    (told,) = watch.look()
    (again,) = watch.look()
    assert ("beta", True, 80 * MB, 1, 2) == (
        told.name,
        told.load.of_host,
        told.load.memory_limit,
        told.load.memory_looks,
        again.load.memory_looks,
    )
    assert 90 * MB < told.load.memory < 130 * MB


class Kernel(Cgroups):
    """A control group that says what a test wants it to say."""

    def __init__(self) -> None:
        super().__init__(None)
        self.says = Usage(0, 0.0, 0.0, 0)

    def holds(self, controller: str) -> bool:
        return True

    def usage(self, name: str, pid: int) -> Usage | None:
        return self.says


def test_the_kernels_figures_go_before_ones_own(start: Start) -> None:
    """What was ended and what was held back in a control group is told, and nothing is bound to cores."""
    kernel, pid = Kernel(), start(GREEDY.format(megabytes=1))
    watch = Watch(fleet(line(max_memory_usage_gb=1.0, max_cpu_usage_percent=50.0)), {"alpha": pid}, kernel)
    assert [] == watch.look()
    kernel.says = Usage(950 * MB, 5.0, 2.0, 1)
    (told,) = watch.look()
    assert (950 * MB, 50.0, 1, 1, True) == (
        told.load.memory,
        told.load.cpu,
        told.load.cpu_looks,
        told.load.oom_kills,
        told.load.kernel,
    )
    assert os.sched_getaffinity(0) == os.sched_getaffinity(pid)


def test_a_line_that_ends_meanwhile_is_no_fault(start: Start) -> None:
    """Its end is told by others."""
    watch = Watch(fleet(line(max_memory_usage_gb=0.001)), {"alpha": 2**22 - 1})
    assert [] == watch.look()


def test_it_looks_by_itself(start: Start) -> None:
    """In its thread, every period."""
    heard = threading.Event()
    config = fleet(line(max_memory_usage_gb=0.001))
    record = WorkerRecord("alpha", state=WorkerState.READY, generation=3, pid=start(GREEDY.format(megabytes=5)))
    pinned = Pinned(config, records={"alpha": record})
    watcher = Watcher(lambda: pinned, Cgroups(None), lambda _: heard.set(), 0.02)
    assert heard.wait(20.0)
    watcher.close()
