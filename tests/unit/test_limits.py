"""Limits of a line as decisions: what is told and when, when it is restarted and how long it then rests, which cores."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet_common.contract import LaunchOrder, StatusDocument
from supervisor.config import ConfigError, load
from supervisor.faces.table import plain
from supervisor.facts import DeadlineReached, Load, LoadSeen, OperatorAsked, ProcessExited, PulseReceived
from supervisor.history import EventKind
from supervisor.messages import ReloadAsked
from supervisor.orders import Launch, Terminate
from supervisor.policy import launching, limits
from supervisor.policy.chronicle import tell
from supervisor.policy.lifecycle import next_due, step
from supervisor.record import (
    Check,
    ExitCause,
    ExitKind,
    OperatorRequest,
    Pressure,
    Wanted,
    WorkerRecord,
    WorkerState,
)
from supervisor.snapshot import FleetSnapshot, HostSnapshot, SupervisorFacts, WorkerSnapshot, from_dict, take
from supervisor.spec import (
    DatasiteSpec,
    FleetConfig,
    HostLimits,
    Resources,
    RestartMode,
    RestartPolicy,
    Rules,
)
from tests.unit.fake_supervisor import fleet as shown_fleet
from tests.unit.fake_supervisor import worker
from tests.unit.fakes import fleet, play

MB = 10**6
GB = 10**9
LIMIT = 4 * GB
CLEAN = ExitCause(ExitKind.CLEAN, "exit code 0", 0)


def record(**more: Any) -> WorkerRecord:
    far = Check(9e9)
    ready = WorkerRecord("a", state=WorkerState.READY, wanted=Wanted.UP, generation=3, readiness=far, liveness=far)
    return replace(ready, **{"pid": 77, "created": 5, "started_at": 90.0, "ready_since": 91.0, **more})


def seen(memory: float, looks: int = 0, generation: int = 3, **more: Any) -> LoadSeen:
    load = Load(memory=round(memory * GB), memory_limit=LIMIT, memory_looks=looks, **more)
    return LoadSeen("a", generation, load)


def told(before: WorkerRecord, *facts: Any) -> tuple[WorkerRecord, list[tuple[EventKind, str]]]:
    events: list[tuple[EventKind, str]] = []
    for fact in facts:
        after = step(before, fact, 100.0).record
        events += [(event.event, event.cause) for event in tell(before, after, fact, 100.0)]
        before = after
    return before, events


# --- warnings ---


def test_a_warning_comes_once_and_is_taken_back_once() -> None:
    """At 90 % of the memory limit; what wavers above 85 % is not told again; below that it is cleared."""
    last, events = told(record(), *(seen(gb) for gb in (3.5, 3.6, 3.7, 3.5, 3.61, 3.3, 3.3)))
    assert [(EventKind.LIMIT_NEAR, "memory"), (EventKind.LIMIT_CLEARED, "memory")] == events
    assert Pressure() == last.pressure


def test_a_warning_names_the_figures() -> None:
    """What it takes and what it may."""
    after = step(record(), seen(3.7), 100.0).record
    assert {"memory": "uses 3.70 of 4 GB of memory"} == after.pressure.near
    (event,) = tell(record(), after, seen(3.7), 100.0)
    assert ("near a limit: uses 3.70 of 4 GB of memory", True) == (event.text, event.warning)


def test_a_limit_that_is_reached_is_told_again_when_it_was_near() -> None:
    """Near, reached, and cleared are three events; falling back to near is none."""
    _, events = told(record(), seen(3.7), seen(4.1, 1), seen(3.7), seen(1.0))
    expected = [EventKind.LIMIT_NEAR, EventKind.LIMIT_REACHED, EventKind.LIMIT_CLEARED]
    assert expected == [kind for kind, _ in events]


def test_what_wavers_about_its_limit_has_reached_it_once() -> None:
    """Over it in one look and under it in the next, for ever."""
    last, events = told(record(), *(seen(gb) for gb in (4.1, 3.9, 4.1, 3.7, 4.2, 3.65)))
    assert [(EventKind.LIMIT_REACHED, "memory")] == events
    assert {"memory": "uses 3.65 of 4 GB of memory"} == last.pressure.reached


def test_cpu_is_told_after_a_while_and_restarts_nobody() -> None:
    """Three looks in a row at the limit; a line that computes hard is doing its work."""
    busy = [LoadSeen("a", 3, Load(cpu=250.0, cpu_limit=200.0, cpu_looks=looks)) for looks in (1, 2, 3, 4)]
    last, events = told(record(), *busy, LoadSeen("a", 3, Load(cpu=10.0, cpu_limit=200.0)))
    assert [(EventKind.LIMIT_REACHED, "cpu"), (EventKind.LIMIT_CLEARED, "cpu")] == events
    assert WorkerState.READY is last.state


def test_a_line_that_the_kernel_holds_back_is_said_to_be() -> None:
    """It may be, a tenth of a second at a time, with a share far below its limit: the share alone would tell nothing."""
    load = Load(cpu=12.0, cpu_limit=30.0, cpu_looks=3, cpu_kernel=True)
    assert {"cpu": "uses 12 of 30 % CPU, and is throttled"} == limits.pressure(Pressure(), load).reached


def test_a_line_that_pauses_now_and_then_is_told_once() -> None:
    """At its CPU limit for three looks, it is at it until three looks in a row were below; the words are the last ones
    of when it was."""
    looks, calm, history = 0, 0, []
    for at_limit in (True, True, False, True, True, True, False, False, True, False, False, False):
        looks, calm = limits.cpu_looks(looks, calm, at_limit=at_limit)
        history.append((looks >= limits.LOOKS, calm))
    expected = [(False, 0), (False, 0), (False, 1), (False, 0), (False, 0), (True, 0)]
    assert [*expected, (True, 1), (True, 2), (True, 0), (True, 1), (True, 2), (False, 3)] == history
    busy = limits.pressure(Pressure(), Load(cpu=99.0, cpu_limit=100.0, cpu_looks=3))
    assert busy == limits.pressure(busy, Load(cpu=2.0, cpu_limit=100.0, cpu_looks=3, cpu_calm=2))


@pytest.mark.parametrize(
    ("load", "worth"),
    [
        (Load(memory=3 * GB, memory_limit=LIMIT), False),
        (Load(memory=round(3.41 * GB), memory_limit=LIMIT), True),
        (Load(memory=9 * GB), False),
        (Load(cpu=900.0, cpu_limit=100.0, cpu_looks=2), False),
        (Load(cpu=900.0, cpu_limit=100.0, cpu_looks=3), True),
        (Load(oom_kills=1), True),
    ],
)
def test_what_is_ordinary_is_not_worth_telling(load: Load, worth: bool) -> None:
    """So that a fleet within its limits makes no facts at all; what was told is taken back."""
    assert worth == limits.is_worth_telling(Pressure(), load)
    assert limits.is_worth_telling(Pressure(near={"memory": "uses 3.70 of 4 GB of memory"}), load)


# --- the restart ---


def test_memory_over_its_limit_for_three_looks_is_a_graceful_restart() -> None:
    """One look over it may be a moment; three in a row are not. SIGTERM, with the figures as the reason."""
    before = record()
    for looks in (1, 2):
        assert () == step(before, seen(4.2, looks), 100.0).orders
    made = step(before, seen(4.2, 3), 100.0)
    assert (Terminate("a", 3, 77),) == made.orders
    assert (WorkerState.STOPPING, "memory limit: uses 4.20 of 4 GB of memory") == (
        made.record.state,
        made.record.reason,
    )
    assert 100.0 + before.rules.grace == next_due(made.record)  # then SIGKILL, as at every stop


def test_a_line_in_a_control_group_is_not_restarted() -> None:
    """The kernel holds it there already."""
    assert WorkerState.READY is step(record(), seen(4.2, 9, kernel=True), 100.0).record.state


def ended(before: WorkerRecord, now: float) -> WorkerRecord:
    """The line is ended for its memory, and has gone."""
    stopping = step(before, seen(4.2, 3, before.generation), now).record
    return step(stopping, ProcessExited("a", before.generation, CLEAN), now).record


def test_it_is_back_at_once_and_the_restart_has_its_cause() -> None:
    """Counted as ``memory_limit``, not as a crash."""
    after = ended(record(), 100.0)
    assert (WorkerState.STARTING, 4, {"memory_limit": 1}, ()) == (
        after.state,
        after.generation,
        after.restarts_by_cause,
        after.crashes,
    )
    assert "memory limit: uses 4.20 of 4 GB of memory" == str(after.last_exit)


def test_a_line_that_is_always_too_big_rests_longer_and_longer() -> None:
    """0, 30, 60, 120 s and so on up to ten minutes; it is never given up, and never restarted in a circle."""
    line, now, rests = record(), 1000.0, []
    for _ in range(8):
        line = ended(line, now)
        rests.append((line.deadline or now) - now if line.state is WorkerState.BACKOFF else 0.0)
        now += rests[-1]
        if line.state is WorkerState.BACKOFF:
            line = step(line, DeadlineReached("a", line.generation), now).record
        line = record(generation=line.generation, limit_ends=line.limit_ends)  # it came up, and is too big again
    assert [0.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0] == rests


def test_an_hour_later_all_is_forgotten() -> None:
    """Then the next one is answered at once again."""
    assert (9000.0,) == limits.remember((1000.0, 2000.0, 5400.0), 9000.0)
    assert (8000.0, 9000.0) == limits.remember((8000.0,), 9000.0)


def test_a_stop_that_is_asked_meanwhile_holds() -> None:
    """The operator's word is the last one."""
    stopping = step(record(), seen(4.2, 3), 100.0).record
    stopping = step(stopping, OperatorAsked("a", OperatorRequest.STOP), 101.0).record
    assert WorkerState.DOWN is step(stopping, ProcessExited("a", 3, CLEAN), 102.0).record.state


def test_a_restart_that_is_asked_meanwhile_is_one() -> None:
    """And waits for nothing, however often the line was too big."""
    stopping = step(record(limit_ends=(90.0, 95.0)), seen(4.2, 3), 100.0).record
    stopping = step(stopping, OperatorAsked("a", OperatorRequest.RESTART), 101.0).record
    assert (Launch("a", 4),) == step(stopping, ProcessExited("a", 3, CLEAN), 102.0).orders


def test_a_line_that_is_never_to_be_restarted_stays_down() -> None:
    """``restart: {mode: never}`` holds for this end as for any other."""
    never = record(rules=Rules(RestartPolicy(RestartMode.NEVER)))
    after = ended(never, 100.0)
    assert (WorkerState.DOWN, Wanted.DOWN) == (after.state, after.wanted)


def test_what_is_told_of_the_restart() -> None:
    """The limit, the stop for it, the end, the start: each with its cause."""
    _, events = told(record(), seen(4.2, 3), ProcessExited("a", 3, CLEAN))
    assert [
        (EventKind.LIMIT_REACHED, "memory"),
        (EventKind.STOPPING, "memory_limit"),
        (EventKind.EXITED, "memory_limit"),
        (EventKind.LIMIT_CLEARED, "memory"),
        (EventKind.STARTING, "memory_limit"),
    ] == events


def test_what_a_process_had_reached_ends_with_it() -> None:
    """However it ends: who waits for ``limit_cleared`` does not wait for ever. Its successor tells anew."""
    full = said(limited={"disk": "1 GB of disk free"})
    last, events = told(record(), full, seen(3.7), ProcessExited("a", 3, ExitCause(ExitKind.SIGNAL, "SIGKILL", -9)))
    assert [(EventKind.LIMIT_CLEARED, "disk"), (EventKind.LIMIT_CLEARED, "memory")] == events[-3:-1]
    again = replace(said(limited={"disk": "1 GB of disk free"}), generation=4)
    again = replace(again, status=replace(again.status, generation=4))
    assert [(EventKind.LIMIT_REACHED, "disk")] == told(replace(last, generation=4), again)[1]


def test_the_end_of_what_a_process_had_reached_is_told_of_that_process() -> None:
    """With its pid and generation, though its successor is on its way; in words for people. What the kernel had ended of
    it is no state that ends."""
    queue = said(limited={"training_sessions": "1 training runs, 2 wait"})
    before = step(step(record(), queue, 100.0).record, seen(3.7, kernel=True, oom_kills=1), 101.0).record
    fact = ProcessExited("a", 3, CLEAN)
    after = step(before, fact, 102.0).record
    cleared = [event for event in tell(before, after, fact, 102.0) if event.event is EventKind.LIMIT_CLEARED]
    assert [("memory", 3, 77), ("training_sessions", 3, 77)] == [
        (one.cause, one.generation, one.pid) for one in cleared
    ]
    assert "no longer near its training sessions limit: its process ended" == cleared[1].text


def test_the_biggest_line_goes_when_all_together_take_too_much() -> None:
    """And it is said that the figures are everybody's. What it takes itself is no news, and no limit of its own."""
    before = record(pressure=Pressure(near={"memory": "uses 0.93 of 1 GB of memory"}))
    made = step(before, seen(4.2, 3, of_host=True), 100.0)
    assert (
        "memory limit: this datasite is the largest; all datasites together use 4.20 of 4 GB of memory"
        == made.record.reason
    )
    assert before.pressure == made.record.pressure


def test_the_hosts_limits_are_told_of_the_fleet() -> None:
    """Once each, whichever line is the biggest at the moment: near, reached, cleared, by names of their own."""
    now = Pressure()
    told: list[Any] = []
    loads = [
        Load(memory=3700 * MB, memory_limit=LIMIT, of_host=True),
        Load(memory=4100 * MB, memory_limit=LIMIT, cpu=390.0, cpu_limit=400.0, cpu_looks=3, of_host=True),
        Load(memory=3700 * MB, memory_limit=LIMIT, of_host=True),
        Load(of_host=True),
    ]
    for one in loads:
        before, now = now, limits.pressure(now, one)
        told += limits.of_all(before, now)
    assert [
        (
            "fleet",
            EventKind.LIMIT_NEAR,
            "host_memory",
            "near a limit: all datasites together use 3.70 of 4 GB of memory",
        ),
        ("fleet", EventKind.LIMIT_REACHED, "host_cpu", "limit reached: all datasites together use 390 of 400 % CPU"),
        (
            "fleet",
            EventKind.LIMIT_REACHED,
            "host_memory",
            "limit reached: all datasites together use 4.10 of 4 GB of memory",
        ),
        ("fleet", EventKind.LIMIT_CLEARED, "host_cpu", "no longer near the host's CPU limit"),
        ("fleet", EventKind.LIMIT_CLEARED, "host_memory", "no longer near the host's memory limit"),
    ] == [(event.name, event.event, event.cause, event.text) for event in told]
    assert [True, True, True, False, False] == [event.warning for event in told]


def test_processes_that_the_kernel_ended_are_told() -> None:
    """A job that ran into the control group's limit, while its datasite lives on."""
    fact = seen(3.0, kernel=True, oom_kills=1, oom_limit="its limit of 4 GB (max_memory_usage_gb)")
    _, events = told(record(), fact)
    assert [(EventKind.LIMIT_REACHED, "oom")] == events
    (event,) = tell(record(), step(record(), fact, 100.0).record, fact, 100.0)
    expected = "out of memory: the kernel killed one of its processes: its limit of 4 GB (max_memory_usage_gb)"
    assert expected == event.text
    assert {"oom": expected} == step(record(), fact, 100.0).record.pressure.reached
    again = seen(3.0, kernel=True, oom_kills=2)
    _, events = told(record(), fact, again, seen(3.0, kernel=True), seen(3.0, kernel=True))
    assert [(EventKind.LIMIT_REACHED, "oom")] * 2 == events


# --- what the worker says itself ---


def said(**more: Any) -> PulseReceived:
    document = StatusDocument("a", "localhost", 8080, "cpu", "running", generation=3, pid=77, **more)
    return PulseReceived("a", 3, document)


def test_a_full_disk_is_told_once_at_its_beginning_and_once_at_its_end() -> None:
    """What the datasite says in its pulse becomes events."""
    full = said(limited={"disk": "1.0 GB free, below 2 GB: uploads are refused"})
    _, events = told(record(), said(), full, full, said(), said())
    assert [(EventKind.LIMIT_REACHED, "disk"), (EventKind.LIMIT_CLEARED, "disk")] == events


# --- cores ---


def test_a_share_of_cpu_becomes_whole_cores() -> None:
    """150 % is two cores, 50 % is one; 0, and what is more than there is, are all."""
    eight = tuple(range(8))
    assert [2, 1, 8, 8, 8] == [len(limits.cores_for("a", percent, eight)) for percent in (150, 50, 0, 800, 9000)]


def test_the_cores_are_the_same_each_time_and_spread() -> None:
    """By name alone; twenty lines of one core each do not all sit on one."""
    allowed = (2, 3, 6, 7)
    first = limits.cores_for("alpha", 100, allowed)
    assert first == limits.cores_for("alpha", 100, allowed)
    assert set(allowed) == {core for n in range(20) for core in limits.cores_for(f"line_{n}", 100, allowed)}


# --- of the host ---


def lines(count: int, host: HostLimits, **own: Any) -> FleetConfig:
    specs = (DatasiteSpec(f"line_{n}", 8080 + n, resources=Resources(**own)) for n in range(count))
    return fleet(*specs, host=host)


def test_sessions_and_bandwidth_of_the_host_are_shared_out_evenly() -> None:
    """So that all together never take more; a line's own smaller limit stays."""
    host = HostLimits(max_concurrent_training_sessions=9, network_bandwidth_limit_mbps=80.0)
    config = lines(4, host)
    may = [launching.limits_of(config, spec) for spec in config.datasites]
    assert [(2, 2_500_000)] * 4 == [(one.sessions, one.bandwidth) for one in may]
    small = lines(2, host, max_concurrent_training_sessions=1, network_bandwidth_limit_mbps=8.0)
    own = launching.limits_of(small, small.datasites[0])
    assert (1, 1_000_000) == (own.sessions, own.bandwidth)


def test_the_greater_disk_threshold_holds() -> None:
    """The disk is everybody's."""
    host = HostLimits(disk_space_threshold_gb=20.0)
    found = [
        launching.limits_of(config, config.datasites[0]).disk_free // GB
        for config in (lines(2, host), lines(2, host, disk_space_threshold_gb=30.0), lines(2, HostLimits()))
    ]
    assert [20, 30, 0] == found


def test_the_hosts_memory_and_cpu_are_no_lines_own() -> None:
    """They are limits of the sum, not parts."""
    config = lines(2, HostLimits(max_memory_usage_gb=8.0, max_cpu_usage_percent=400.0))
    own, host = launching.limits_of(config, config.datasites[0]), launching.host_limits(config)
    assert (0, 0.0, 8 * GB, 400.0) == (own.memory, own.cpu_percent, host.memory, host.cpu_percent)


@pytest.mark.parametrize(
    ("own", "host", "threads"),
    [
        ({}, HostLimits(), 8),
        ({"max_cpu_usage_percent": 250.0}, HostLimits(), 3),
        ({"max_cpu_usage_percent": 5000.0}, HostLimits(), 8),
        ({}, HostLimits(max_cpu_usage_percent=400.0), 2),
        ({}, HostLimits(max_cpu_usage_percent=50.0), 1),
        ({"max_cpu_usage_percent": 100.0, "threads": 6}, HostLimits(), 6),
    ],
)
def test_no_more_threads_than_the_cpu_limit_is_cores(own: dict[str, float], host: HostLimits, threads: int) -> None:
    """Two lines on sixteen cores. More would wait for each other: two threads held to one core were measured 20 times
    slower than one. The operator's own number stays."""
    config = lines(2, host, **own)
    order = launching.launch_order(config, config.datasites[0], 1, 16)
    assert isinstance(order, LaunchOrder)
    assert threads == order.compute.threads


def test_a_reload_that_changes_a_lines_part_tells_the_running_line() -> None:
    """The host's limit itself, or another line to share it with; nobody is restarted."""
    alpha, beta = DatasiteSpec("alpha", 8080), DatasiteSpec("beta", 8081)
    host = HostLimits(network_bandwidth_limit_mbps=80.0)
    world = play(
        fleet(alpha),
        [
            lambda _: [ReloadAsked(fleet(alpha, host=host))],
            lambda _: [ReloadAsked(fleet(alpha, beta, host=host))],
            lambda _: [ReloadAsked(fleet(alpha, beta, host=replace(host, max_memory_usage_gb=9.0)))],
        ],
    )
    assert [("configure", "alpha", 1)] * 2 == [done for done in world.done if done[0] == "configure"]
    assert [("launch", "alpha", 1), ("launch", "beta", 1)] == [done for done in world.done if done[0] == "launch"]


# --- in the picture ---


def picture(config: FleetConfig, held: frozenset[str], **more: Any) -> WorkerSnapshot:
    about = SupervisorFacts(1, "1.0", 0.0, stopping=False, revision=1, held=held)
    return whole(config, about, **more).datasites[0]


def whole(config: FleetConfig, about: SupervisorFacts, **more: Any) -> FleetSnapshot:
    known = {spec.name: record(**more) for spec in config.datasites}
    return take(config, known, {}, about, 100.0, "2026-03-01T12:00:00+00:00")


BOTH = frozenset(("memory", "cpu"))


@pytest.mark.parametrize(
    ("own", "host", "held", "enforced"),
    [
        ({}, HostLimits(), BOTH, "no"),
        ({"disk_space_threshold_gb": 1.0}, HostLimits(), BOTH, "no"),
        ({"max_memory_usage_gb": 1.0}, HostLimits(), BOTH, "cgroup"),
        ({"max_memory_usage_gb": 1.0}, HostLimits(), frozenset({"memory"}), "cgroup"),
        ({"max_memory_usage_gb": 1.0}, HostLimits(max_cpu_usage_percent=100.0), frozenset({"memory"}), "watch"),
        ({"max_cpu_usage_percent": 50.0}, HostLimits(), frozenset(), "watch"),
        ({}, HostLimits(max_memory_usage_gb=8.0), BOTH, "cgroup"),
    ],
)
def test_a_picture_says_who_enforces(
    own: dict[str, float], host: HostLimits, held: frozenset[str], enforced: str
) -> None:
    """``cgroup`` only where the kernel holds the line to every limit of memory and CPU that there is."""
    assert enforced == picture(lines(1, host, **own), held).enforced


def test_a_line_that_could_not_join_its_group_is_watched() -> None:
    """And said to be, whatever holds for the others; so are all together, as not all are held."""
    config = lines(2, HostLimits(max_memory_usage_gb=8.0), max_memory_usage_gb=1.0)
    about = SupervisorFacts(1, "1.0", 0.0, stopping=False, revision=1, held=BOTH)
    outside = replace(about, held_otherwise={"line_1": frozenset()})
    shown = whole(config, outside)
    assert (["cgroup", "watch"], "watch") == ([line.enforced for line in shown.datasites], shown.host.enforced)
    assert "cgroup" == whole(config, about).host.enforced


def test_the_hosts_limits_are_in_the_picture() -> None:
    """Once for the host, by name and in words; and every running line says that it is held back by them too."""
    config = lines(2, HostLimits(max_cpu_usage_percent=400.0))
    words = "all datasites together use 399 of 400 % CPU"
    about = SupervisorFacts(1, "1.0", 0.0, stopping=False, revision=1, host=Pressure(reached={"host_cpu": words}))
    shown = from_dict(json.loads(json.dumps(whole(config, about).to_dict())))
    assert HostSnapshot({"max_cpu_usage_percent": 400.0}, "watch", {"host_cpu": words}) == shown.host
    assert [{"host_cpu": words}] * 2 == [line.limited for line in shown.datasites]
    assert {} == whole(config, about, pid=None).datasites[0].limited
    text = plain(shown)
    assert (1, 2) == (text.count(f"host at its limit: {words}"), text.count("host_cpu"))


def test_a_picture_of_an_earlier_version_has_no_host() -> None:
    """``fleet status`` may ask a supervisor that was started before an update."""
    document = whole(lines(1, HostLimits()), SupervisorFacts(1, "1.0", 0.0, stopping=False, revision=1)).to_dict()
    del document["host"]
    assert HostSnapshot() == from_dict(document).host


def test_a_picture_has_the_limits_and_what_is_reached() -> None:
    """By the names of fleet.yaml; what the worker says of itself and what is seen of it, together."""
    said = StatusDocument("line_0", "localhost", 8080, "cpu", "running", limited={"disk": "nearly full"})
    pressure = Pressure({"memory": "uses 3.70 of 4 GB of memory"}, {"cpu": "uses 250 of 200 % CPU"})
    config = lines(1, HostLimits(), max_memory_usage_gb=4.0, threads=2)
    shown = picture(config, frozenset(), status=said, pressure=pressure)
    assert {"max_memory_usage_gb": 4.0, "max_concurrent_training_sessions": 3} == shown.limits
    assert {"cpu": "uses 250 of 200 % CPU", "disk": "nearly full"} == shown.limited
    assert {"memory": "uses 3.70 of 4 GB of memory"} == shown.near_limits


def test_the_table_shows_memory_with_its_limit_and_what_is_reached() -> None:
    """And a sentence below for each limit that is near or reached."""
    limited = worker(
        "line_a",
        memory_mb=1144.4,
        limits={"max_memory_usage_gb": 4.0},
        limited={"disk": "1.2 GB of disk free", "cpu": "uses 250 of 200 % CPU"},
        near_limits={"memory": "uses 3.70 of 4 GB of memory"},
    )
    shown = plain(shown_fleet(limited, worker("line_b")))
    row, other = (next(line for line in shown.splitlines() if line.startswith(name)) for name in ("line_a", "line_b"))
    assert ("1.2/4 GB", "disk,cpu") == tuple(row.split("  ")[at].strip() for at in (-2, -1))
    assert "108M" in other
    assert "line_a at its limit: 1.2 GB of disk free" in shown
    assert "line_a near its limit: uses 3.70 of 4 GB of memory" in shown


def test_a_fleet_within_its_limits_has_no_column_for_them() -> None:
    """Nothing to tell, nothing shown."""
    assert "limited" not in plain(shown_fleet(worker()))


# --- in the file ---


def test_the_hosts_limits_are_read(tmp_path: Path) -> None:
    """Each under its name."""
    keys = "{max_memory_usage_gb: 48, max_cpu_usage_percent: 1200, max_concurrent_training_sessions: 4,"
    keys += " disk_space_threshold_gb: 20.5, network_bandwidth_limit_mbps: 800}"
    assert HostLimits(48.0, 1200.0, 4, 20.5, 800.0) == written(tmp_path, keys).host


def test_fewer_sessions_than_lines_cannot_be_shared_out(tmp_path: Path) -> None:
    """It is said where, and how many are needed; 0 is no limit."""
    with pytest.raises(ConfigError, match=r"host\.max_concurrent_training_sessions.*at least 2, one for each datasite"):
        written(tmp_path, "{max_concurrent_training_sessions: 1}")
    assert 0 == written(tmp_path, "{max_concurrent_training_sessions: 0}").host.max_concurrent_training_sessions


def written(folder: Path, host: str) -> FleetConfig:
    file = folder / "fleet.yaml"
    file.write_text(
        f"version: 1\ndashboard: embedded\nhost: {host}\n"
        "datasites:\n  - {name: a, port: 8080}\n  - {name: b, port: 8081}\n"
    )
    return load(file, {})
