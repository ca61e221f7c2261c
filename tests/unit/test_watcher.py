"""The watcher on real processes: what they take is found, once told near a limit, and cores are really bound."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest

from supervisor.effects.board import Pinned
from supervisor.effects.cgroups import Cgroups, Usage
from supervisor.effects.watcher import Watcher
from supervisor.facts import LoadSeen
from supervisor.history import Event, EventKind
from supervisor.policy import limits
from supervisor.policy.lifecycle import step
from supervisor.record import Pressure, WorkerRecord, WorkerState
from supervisor.spec import DatasiteSpec, FleetConfig, HostLimits, Resources
from tests.unit.fakes import fleet, status

pytestmark = pytest.mark.process

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
        self.told: list[LoadSeen | Event] = []
        self.watcher = Watcher(lambda: Pinned(config), cgroups or Cgroups(None), self.told.append, 3600.0)
        self.watcher.close()
        self.now = 100.0

    def look(self) -> list[LoadSeen]:
        """What is told of lines; they are then known to be near their limits, as the engine would have it."""
        self.told.clear()
        self.watcher.look(self.config, self.records, self.now)
        self.now += 10.0
        seen = [told for told in self.told if isinstance(told, LoadSeen)]
        for told in seen:
            before = self.records[told.name]
            self.records[told.name] = step(before, told, self.now).record
        return seen

    def events(self) -> list[tuple[str, EventKind, str]]:
        """What the last look told of all lines together."""
        return [(told.name, told.event, told.cause) for told in self.told if isinstance(told, Event)]


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


def test_a_limit_that_a_reload_takes_away_holds_no_longer(start: Start) -> None:
    """Even if it was the only one: its warning is taken back, its cores are free again, and then nobody looks."""
    allowed = os.sched_getaffinity(0)
    pid = start(GREEDY.format(megabytes=60))
    watch = Watch(fleet(line(max_memory_usage_gb=0.05, max_cpu_usage_percent=100.0)), {"alpha": pid})
    watch.look()
    assert ["memory"] == list(watch.records["alpha"].pressure.reached)
    watch.config = fleet(line())
    assert [1, 0] == [len(watch.look()) for _ in range(2)]
    assert (Pressure(), allowed) == (watch.records["alpha"].pressure, os.sched_getaffinity(pid))


def test_the_hosts_cores_are_free_again_without_its_limit(start: Start) -> None:
    """For every line."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core can be bound to nothing less")
    pids = {name: start(GREEDY.format(megabytes=1)) for name in ("alpha", "beta")}
    watch = Watch(fleet(line(), line("beta"), host=HostLimits(max_cpu_usage_percent=50.0)), pids)
    watch.look()
    bound = [os.sched_getaffinity(pid) for pid in pids.values()]
    assert ([1, 1], bound[0]) == ([len(cores) for cores in bound], bound[1])
    watch.config = fleet(line(), line("beta"))
    watch.look()
    assert [allowed, allowed] == [os.sched_getaffinity(pid) for pid in pids.values()]


def test_all_lines_together(start: Start) -> None:
    """The host's limit is told of the fleet, once. At the third look the biggest has to go, and the next to go has as
    many looks again. With the limit gone all is well, once."""
    pids = {name: start(GREEDY.format(megabytes=size)) for name, size in (("alpha", 30), ("beta", 60))}
    watch = Watch(fleet(line(), line("beta"), host=HostLimits(max_memory_usage_gb=0.08)), pids)
    told, events = [], []
    for _ in range(limits.LOOKS + 2):
        told.append([(seen.name, seen.load.of_host, limits.why_end(seen.load) != "") for seen in watch.look()])
        events.append(watch.events())
    assert [[], [], [("beta", True, True)], [], []] == told
    assert [[("fleet", EventKind.LIMIT_REACHED, "host_memory")], [], [], [], []] == events
    assert "all datasites together use 0.1" in watch.watcher.host.reached["host_memory"]
    watch.config = fleet(line(), line("beta"))
    watch.look()
    assert [("fleet", EventKind.LIMIT_CLEARED, "host_memory")] == watch.events()
    watch.look()
    assert ([], Pressure()) == (watch.events(), watch.watcher.host)


def test_who_goes_for_its_own_limit_goes_for_no_other(start: Start) -> None:
    """One line at a time: that alone may be enough for all together."""
    pids = {name: start(GREEDY.format(megabytes=size)) for name, size in (("alpha", 30), ("beta", 60))}
    config = fleet(line(), line("beta", max_memory_usage_gb=0.05), host=HostLimits(max_memory_usage_gb=0.08))
    watch = Watch(config, pids)
    for _ in range(limits.LOOKS - 1):
        watch.look()
    assert [("beta", False)] == [(seen.name, seen.load.of_host) for seen in watch.look()]


def test_what_all_lines_compute_is_told(start: Start) -> None:
    """After three looks at the host's limit, whoever computes; and taken back after as many below it."""
    pids = {"alpha": start(BUSY), "beta": start(GREEDY.format(megabytes=1))}
    watch = Watch(fleet(line(), line("beta"), host=HostLimits(max_cpu_usage_percent=1.0)), pids)
    told: list[list[tuple[str, EventKind, str]]] = []
    for _ in range(limits.LOOKS + 1):
        spent = sum(psutil.Process(pids["alpha"]).cpu_times()[:2])
        while sum(psutil.Process(pids["alpha"]).cpu_times()[:2]) < spent + 0.15:
            os.sched_yield()
        watch.look()
        told.append(watch.events())
    assert [[]] * limits.LOOKS + [[("fleet", EventKind.LIMIT_REACHED, "host_cpu")]] == told
    psutil.Process(pids["alpha"]).suspend()
    then: list[tuple[str, EventKind, str]] = []
    for _ in range(limits.LOOKS + 1):  # the first has what was computed before it
        watch.look()
        then += watch.events()
    psutil.Process(pids["alpha"]).resume()
    assert [("fleet", EventKind.LIMIT_CLEARED, "host_cpu")] == then


class Kernel(Cgroups):
    """A control group that says what a test wants it to say."""

    held = frozenset(("memory", "cpu"))

    def __init__(self) -> None:
        super().__init__(None)
        self.says = Usage(0, 0.0, 0.0, 0)
        self.says_of_all = Usage(0, 0.0, 0.0)
        self.outside: set[int] = set()

    def holds(self, controller: str) -> bool:
        return True

    def held_of(self, name: str, pid: int) -> frozenset[str]:
        return frozenset() if pid in self.outside else self.held

    def usage(self, name: str, pid: int) -> Usage | None:
        return None if pid in self.outside else self.says

    def usage_of_all(self) -> Usage | None:
        return self.says_of_all


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


def test_the_kernels_figures_of_all_lines_are_told(start: Start) -> None:
    """Memory near the host's limit, and CPU that was held back for it; nobody has to go, the kernel sees to that."""
    kernel = Kernel()
    host = HostLimits(max_memory_usage_gb=1.0, max_cpu_usage_percent=50.0)
    watch = Watch(fleet(line(), host=host), {"alpha": start(GREEDY.format(megabytes=1))}, kernel)
    told: list[tuple[str, EventKind, str]] = []
    for look in range(limits.LOOKS + 2):
        kernel.says_of_all = Usage(950 * MB + look * 20 * MB, 2.0 * look, 1.0 * look)
        assert [] == watch.look()
        told += watch.events()
    assert [
        ("fleet", EventKind.LIMIT_NEAR, "host_memory"),
        ("fleet", EventKind.LIMIT_REACHED, "host_cpu"),
        ("fleet", EventKind.LIMIT_REACHED, "host_memory"),
    ] == sorted(told, key=lambda event: (event[1] != EventKind.LIMIT_NEAR, event[2]))


def test_a_line_outside_its_group_is_watched_and_bound(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """It could not join: then it has cores of its own, and its memory is weighed, as if there were no groups. That is
    said once. One that has said nothing yet may still be joining."""
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core can be bound to nothing less")
    kernel, pid = Kernel(), start(GREEDY.format(megabytes=60))
    kernel.outside = {pid}
    config = fleet(line(max_memory_usage_gb=0.05, max_cpu_usage_percent=50.0))
    watch = Watch(config, {"alpha": pid}, kernel)
    watch.watcher.give_cores(config.datasites[0], pid, config)
    watch.look()
    assert (allowed, "") == (os.sched_getaffinity(pid), caplog.text)
    watch.records["alpha"] = replace(watch.records["alpha"], status=status("alpha", 3, pid))
    (first,), (second,) = watch.look(), watch.look()
    assert (False, 3) == (first.load.kernel, second.load.memory_looks)
    assert limits.why_end(second.load)
    assert 1 == len(os.sched_getaffinity(pid))
    assert 1 == caplog.text.count(
        f"alpha: the kernel does not enforce the limits of pid {pid}; the supervisor watches them"
    )
    kernel.outside.clear()
    watch.look()
    assert allowed == os.sched_getaffinity(pid)


def test_a_look_that_fails_is_not_the_last(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was: limits are looked at again."""
    twice = threading.Semaphore(0)

    def read() -> Pinned:
        twice.release()
        raise OSError

    monkeypatch.setattr(logging.getLogger("fleet"), "disabled", True)
    watcher = Watcher(read, Cgroups(None), lambda _: None, 0.02)
    assert [True, True] == [twice.acquire(timeout=20.0) for _ in range(2)]
    watcher.close()


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
