"""Control groups as files: who sits where, what is written into which; by a folder that looks like the kernel's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from supervisor.effects import cgroups as module
from supervisor.effects.cgroups import FREES, LEAF, LINES, Cgroups, Usage
from supervisor.effects.evidence import Evidence
from supervisor.effects.processes import cause_of_code
from supervisor.record import ExitKind

GB = 10**9


class Kernel:
    """A folder in which the files of a delegated group lie, and into which a test writes what the kernel would say.

    A real one turns ``+memory`` into ``memory``; here the test does.
    """

    def __init__(self, own: Path) -> None:
        self.own = own
        self.lines = own / LINES
        self.alpha = self.lines / "line-alpha"
        for folder in (own, own / LEAF, self.lines, self.alpha):
            folder.mkdir(parents=True)
            (folder / "cgroup.subtree_control").write_text("")
        (own / "cgroup.procs").write_text("")

    def has(self, *controllers: str) -> None:
        (self.lines / "cgroup.subtree_control").write_text(" ".join(controllers))

    def say(self, file: str, text: str) -> None:
        (self.alpha / file).write_text(text)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "fleet-plant.service")


@pytest.fixture
def groups(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    """With both controllers."""
    monkeypatch.setattr(module, "_switched_on", lambda *_: frozenset(("memory", "cpu")))
    return Cgroups(kernel.own, safe=True)


def test_everybody_moves_to_the_leaf_before_controllers_are_switched_on(kernel: Kernel) -> None:
    """cgroup v2 wants no process in a group whose children have controllers."""
    (kernel.own / "cgroup.procs").write_text("4711\n")
    Cgroups(kernel.own, safe=True)
    assert "4711" == (kernel.own / LEAF / "cgroup.procs").read_text()
    switched = [(folder / "cgroup.subtree_control").read_text() for folder in (kernel.own, kernel.lines)]
    assert ["+cpu", "+cpu"] == switched  # the last of two writes into a plain file


def test_where_the_units_next_start_would_fail_nothing_is_moved(kernel: Kernel) -> None:
    """Lines get groups, for their end; the limits are watched, and that is said."""
    (kernel.own / "cgroup.procs").write_text("4711\n")
    made = Cgroups(kernel.own)
    assert not (kernel.own / LEAF / "cgroup.procs").exists()
    assert (str(kernel.alpha), False) == (made.make("alpha"), made.holds("memory"))
    assert "without controllers; the supervisor watches memory and CPU limits" in made.words


def test_a_machine_that_delegates_nothing_is_no_fault() -> None:
    """No group, no limit, no complaint."""
    none = Cgroups(None)
    none.limit("alpha", GB, 100.0)
    none.limit_all(GB, 100.0)
    none.end("alpha")
    assert ("", None, "", False) == (
        none.make("alpha"),
        none.usage("alpha", 1),
        none.out_of_memory("alpha"),
        none.holds("cpu"),
    )


@pytest.mark.parametrize("inner", [True, False], ids=["systemd 254 and later", "before"])
@pytest.mark.parametrize("frees", [True, False])
def test_controllers_are_switched_on_only_where_it_is_safe(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, inner: bool, frees: bool
) -> None:
    """In the leaf that the service manager put us into; or where the unit says that it frees its group."""
    switched: list[Path] = []

    def switch_on(own: Path, _lines: Path) -> frozenset[str]:
        switched.append(own)
        return frozenset(("memory",))

    monkeypatch.setattr(module, "_own_group", lambda: kernel.own / LEAF if inner else kernel.own)
    monkeypatch.setattr(module, "_is_delegated", lambda group: group == kernel.own)
    monkeypatch.setattr(module, "_switched_on", switch_on)
    found = Cgroups.find({FREES: "1"} if frees else {})
    safe = inner or frees
    assert ([kernel.own] if safe else [], safe, str(kernel.alpha)) == (
        switched,
        found.holds("memory"),
        found.make("alpha"),
    )


def test_limits_are_the_kernels_files(kernel: Kernel, groups: Cgroups) -> None:
    """Bytes and microseconds of CPU in each tenth of a second; 0 is no limit; changed while it runs."""
    groups.limit("alpha", 4 * GB, 150.0)
    assert ("4000000000", "150000 100000") == (
        (kernel.alpha / "memory.max").read_text(),
        (kernel.alpha / "cpu.max").read_text(),
    )
    groups.limit("alpha", 0, 0.0)
    assert ("max", "max 100000") == (
        (kernel.alpha / "memory.max").read_text(),
        (kernel.alpha / "cpu.max").read_text(),
    )
    groups.limit_all(8 * GB, 400.0)
    assert ("8000000000", "400000 100000") == (
        (kernel.lines / "memory.max").read_text(),
        (kernel.lines / "cpu.max").read_text(),
    )


def test_who_is_held_to_its_memory_is_not_swapped_out_instead(kernel: Kernel, groups: Cgroups) -> None:
    """Or a line would go on growing, on the disk that all share. A machine that counts no swap has no such file."""
    groups.limit("alpha", GB, 0.0)
    assert not (kernel.alpha / "memory.swap.max").exists()
    kernel.say("memory.swap.max", "max\n")
    groups.limit("alpha", GB, 0.0)
    assert "0" == (kernel.alpha / "memory.swap.max").read_text()
    groups.limit("alpha", 0, 0.0)
    assert "max" == (kernel.alpha / "memory.swap.max").read_text()


def test_a_limit_that_cannot_be_set_is_no_end_of_the_supervisor(
    kernel: Kernel, groups: Cgroups, caplog: pytest.LogCaptureFixture
) -> None:
    """It is an error in the log, and nothing holds the line to it until it can be set."""
    kernel.say("cgroup.procs", "77\n")
    (kernel.alpha / "memory.max").mkdir()
    groups.limit("alpha", GB, 50.0)
    assert "memory.max to 1000000000 (Is a directory); the supervisor watches this limit" in caplog.text
    assert frozenset(("cpu",)) == groups.held_of("alpha", 77)
    (kernel.alpha / "memory.max").rmdir()
    groups.limit("alpha", GB, 50.0)
    assert frozenset(("memory", "cpu")) == groups.held_of("alpha", 77) == groups.held


def test_who_is_not_in_its_group_is_held_to_nothing(kernel: Kernel, groups: Cgroups) -> None:
    """A worker that could not join, or one of before; nor anybody where nothing was delegated."""
    kernel.say("cgroup.procs", "77\n")
    found = [groups.held_of(*who) for who in (("alpha", 77), ("alpha", 99), ("beta", 77))]
    assert [frozenset(("memory", "cpu")), frozenset(), frozenset()] == found
    assert {"beta": frozenset()} == groups.held_otherwise({"alpha": 77, "beta": 78})
    none = Cgroups(None)
    assert {} == none.held_otherwise({"alpha": 77})
    assert (frozenset(), frozenset(), None) == (none.held, none.held_of("alpha", 77), none.usage_of_all())


def test_what_all_lines_take_is_their_groups(kernel: Kernel, groups: Cgroups) -> None:
    """The dashboard included; and how long the host's CPU limit has held them back."""
    for file, text in (
        ("memory.current", "5000"),
        ("memory.stat", "inactive_file 1000"),
        ("cpu.stat", "usage_usec 9000000\nthrottled_usec 250000"),
    ):
        (kernel.lines / file).write_text(text)
    assert Usage(4000, 9.0, 0.25) == groups.usage_of_all()


def test_cache_that_may_go_does_not_count(kernel: Kernel, groups: Cgroups) -> None:
    """What a line takes is what the kernel could not simply drop."""
    kernel.say("cgroup.procs", "77\n78\n")
    kernel.say("memory.current", "1000\n")
    kernel.say("memory.stat", "anon 500\ninactive_file 300\nactive_file 100\n")
    kernel.say("cpu.stat", "usage_usec 2500000\nnr_throttled 3\nthrottled_usec 500000\n")
    kernel.say("memory.events", "low 0\nhigh 0\nmax 9\noom 1\noom_kill 2\noom_group_kill 0\n")
    found = groups.usage("alpha", 77)
    assert Usage(700, 2.5, 0.5, 2) == found
    assert None is groups.usage("alpha", 99)  # a worker that could not join is not held by it


def test_a_group_that_does_not_know_memory_tells_nothing(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is then weighed by fleet itself, and CPU is the kernel's all the same."""
    monkeypatch.setattr(module, "_switched_on", lambda *_: frozenset(("cpu",)))
    half = Cgroups(kernel.own, safe=True)
    kernel.say("cgroup.procs", "77\n")
    half.limit("alpha", GB, 50.0)
    assert (None, False) == (half.usage("alpha", 77), (kernel.alpha / "memory.max").exists())
    assert "50000 100000" == (kernel.alpha / "cpu.max").read_text()


def test_an_end_by_the_memory_limit_is_told_as_such(kernel: Kernel, groups: Cgroups) -> None:
    """By the count of its own group, once; which limit it was, too."""
    kernel.say("memory.events", "oom 0\noom_kill 0\n")
    kernel.say("memory.max", "4000000000\n")
    groups.make("alpha")
    assert "" == groups.out_of_memory("alpha")
    kernel.say("memory.events", "oom 1\noom_kill 1\n")
    assert "its limit of 4 GB (max_memory_usage_gb)" == groups.out_of_memory("alpha")
    groups.make("alpha")  # the next process
    assert "" == groups.out_of_memory("alpha")


def test_each_end_by_the_kernel_names_the_limit_of_its_own_time(kernel: Kernel, groups: Cgroups) -> None:
    """One for the line's own limit does not make a later one, for the host's, its own."""
    kernel.say("cgroup.procs", "77\n")
    kernel.say("memory.current", "1000\n")
    kernel.say("memory.max", "4000000000\n")
    (kernel.lines / "memory.max").write_text("8000000000\n")
    groups.make("alpha")
    said = []
    for own, hosts, kills in ((1, 0, 1), (1, 1, 2), (1, 1, 3)):
        kernel.say("memory.events", f"oom {own}\noom_kill {kills}\n")
        (kernel.lines / "memory.events.local").write_text(f"oom {hosts}\noom_kill 0\n")
        usage = groups.usage("alpha", 77)
        said.append((usage.oom_kills, usage.oom_limit) if usage else None)
    assert [
        (1, "its limit of 4 GB (max_memory_usage_gb)"),
        (2, "the host's limit of 8 GB for all datasites (host: max_memory_usage_gb)"),
        (3, "the machine has no free memory"),
    ] == said


def test_a_limit_that_was_hit_weeks_ago_is_no_cause_now(kernel: Kernel, groups: Cgroups) -> None:
    """Another line's end for the host's limit; but the host's limit is hit a moment before a process ends for it."""
    kernel.say("memory.events", "oom 0\noom_kill 0\n")
    (kernel.lines / "memory.max").write_text("8000000000\n")
    groups.make("alpha")
    (kernel.lines / "memory.events.local").write_text("oom 1\noom_kill 1\n")
    assert ["", ""] == [groups.out_of_memory("alpha") for _ in range(2)]
    kernel.say("memory.events", "oom 0\noom_kill 1\n")
    assert "the machine has no free memory" == groups.out_of_memory("alpha")
    (kernel.lines / "memory.events.local").write_text("oom 2\noom_kill 1\n")
    groups.out_of_memory("alpha")
    kernel.say("memory.events", "oom 0\noom_kill 2\n")
    assert groups.out_of_memory("alpha").startswith("the host's limit of 8 GB")


def test_the_hosts_limit_and_the_machines_end_are_others(kernel: Kernel, groups: Cgroups) -> None:
    """The line itself had room."""
    kernel.say("memory.events", "oom 0\noom_kill 0\n")
    groups.make("alpha")
    kernel.say("memory.events", "oom 0\noom_kill 1\n")
    assert "the machine has no free memory" == groups.out_of_memory("alpha")
    kernel.say("memory.events", "oom 0\noom_kill 2\n")
    (kernel.lines / "memory.events.local").write_text("oom 1\noom_kill 0\n")
    (kernel.lines / "memory.max").write_text("8000000000\n")
    expected = "the host's limit of 8 GB for all datasites (host: max_memory_usage_gb)"
    assert expected == groups.out_of_memory("alpha")


def test_the_cause_of_the_end_names_the_limit(tmp_path: Path) -> None:
    """Certain, whatever the kernel's log and count say; only for what the kernel kills."""
    evidence = Evidence(tmp_path / "none", tmp_path / "none")
    killed, limit = cause_of_code(-9), "its limit of 4 GB (max_memory_usage_gb)"
    expected = replace(killed, kind=ExitKind.OOM, detail=f"SIGKILL: out of memory: {limit}")
    assert expected == evidence.explain(killed, 77, tmp_path, limit)
    assert cause_of_code(70) == evidence.explain(cause_of_code(70), 77, tmp_path, limit)


def test_the_end_of_a_line_kills_what_is_left_of_it(kernel: Kernel, groups: Cgroups) -> None:
    """By the kernel's own switch."""
    groups.end("alpha")
    assert "1" == (kernel.alpha / "cgroup.kill").read_text()
