"""Reloads, turns and memory, played through the real engine with a world made of values."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from supervisor.engine import Engine
from supervisor.facts import OperatorAsked, ProcessAdopted, ProcessExited, RulesChanged
from supervisor.history import EventKind
from supervisor.messages import DownAsked, Exited, ReloadAsked
from supervisor.policy.admission import SLOT
from supervisor.policy.lifecycle import step
from supervisor.record import By, ExitCause, ExitKind, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import (
    DashboardSpec,
    DatasiteSpec,
    FleetConfig,
    Hook,
    ProbePolicy,
    ProbeTiming,
    RestartPolicy,
    StartupPolicy,
)
from tests.unit.fakes import EndOfScript, FakeMachine, fleet, play

KILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL")
ALPHA = DatasiteSpec("alpha", 8080)
BETA = DatasiteSpec("beta", 8081)
GAMMA = DatasiteSpec("gamma", 8082)
FLEET = fleet(ALPHA, BETA)
STARTED = [("launch", "alpha", 1), ("launch", "beta", 1)]
Deed = Callable[[FakeMachine], list[Any]]


def reload(*specs: DatasiteSpec, **more: Any) -> Deed:
    return lambda _: [ReloadAsked(fleet(*specs, **more))]


def asked(name: str, request: OperatorRequest) -> Deed:
    return lambda _: [OperatorAsked(name, request)]


def stubborn(*names: str) -> Deed:
    def become(world: FakeMachine) -> list[Any]:
        world.stubborn |= set(names)
        return [OperatorAsked("nobody", OperatorRequest.STOP)]  # a message, so that no time passes

    return become


def wait(_: FakeMachine) -> list[Any]:
    """Let the time come that the engine waits for."""
    return []


def run(config: FleetConfig, world: FakeMachine, first: list[Any] | None = None) -> None:
    """Start every line, or take ``first``, and play the world's script."""
    everyone = [OperatorAsked(spec.name, OperatorRequest.START) for spec in config.workers]
    with contextlib.suppress(EndOfScript):
        Engine(config, world).run(everyone if first is None else first)


def told(world: FakeMachine) -> list[str]:
    return [event.event.value for event in world.events if event.name == "fleet"]


# --- reload ---


def test_a_reload_starts_what_is_new_and_touches_nobody_else() -> None:
    """Only the new line is launched, and the old ones keep their processes."""
    world = play(FLEET, [reload(ALPHA, BETA, GAMMA)])
    assert [*STARTED, ("launch", "gamma", 1)] == world.done
    assert [WorkerState.READY] * 3 == [world.pinned[name].state for name in ("alpha", "beta", "gamma")]
    assert (By.RELOAD, "started by a reload: new in fleet.yaml") == (
        world.pinned["gamma"].asked_by,
        world.pinned["gamma"].asked,
    )
    assert ["reloaded"] == told(world)
    assert "reloaded: gamma added" in [event.text for event in world.events]


def test_a_removed_line_is_stopped_then_forgotten() -> None:
    """It is shown while it goes, and there is nothing of it afterwards."""
    world = play(FLEET, [reload(ALPHA)])
    assert [*STARTED, ("terminate", "beta")] == world.done
    assert ["alpha"] == list(world.pinned)
    assert "stopped by a reload: no longer in fleet.yaml" in world.events[-1].text


def test_a_removed_line_that_does_not_go_is_kept_in_sight_until_it_has() -> None:
    """Forgetting a living process would leave it without anybody who ends it."""
    world = play(FLEET, [stubborn("beta"), reload(ALPHA)])
    assert (WorkerState.STOPPING, Wanted.DOWN) == (world.pinned["beta"].state, world.pinned["beta"].wanted)
    world = play(FLEET, [stubborn("beta"), reload(ALPHA), wait])
    assert ("kill", "beta") == world.done[-1]
    assert ["alpha"] == list(world.pinned)


def test_two_lines_that_swap_ports_wait_for_each_others_end() -> None:
    """Whoever is gone first is launched only when the other has let go of the port."""
    swapped = reload(replace(ALPHA, port=8081), replace(BETA, port=8080))
    world = play(FLEET, [stubborn("beta"), swapped])
    assert [*STARTED, ("terminate", "alpha"), ("terminate", "beta")] == world.done
    assert (WorkerState.STARTING, None) == (world.pinned["alpha"].state, world.pinned["alpha"].started_at)
    world = play(FLEET, [stubborn("beta"), swapped, wait])
    after = [("kill", "beta"), ("launch", "alpha", 2), ("launch", "beta", 2)]
    assert after == [*world.done[4:5], *sorted(world.done[5:])]
    assert {WorkerState.READY} == {record.state for record in world.pinned.values()}


def test_the_port_of_an_adopted_process_is_the_one_it_was_launched_with() -> None:
    """fleet.yaml changed while no supervisor was running: a new line on the old port waits until the adopted one has gone."""
    moved, newcomer = replace(ALPHA, port=9000), DatasiteSpec("newcomer", 8080)
    why = OperatorAsked("alpha", OperatorRequest.RESTART, By.ADOPTION, "its configuration changed")
    first = [ProcessAdopted("alpha", 3, 500, 5, 60.0, 8080), OperatorAsked("newcomer", OperatorRequest.START), why]

    class WithOld(FakeMachine):
        def terminate(self, pid: int) -> None:
            self.done.append(("terminate", self.alive[pid][0]))  # and it takes its time

    world = WithOld([lambda w: [Exited("alpha", 3, 500)]])
    world.alive[500], world.causes[500] = ("alpha", 3), KILLED
    run(fleet(moved, newcomer), world, first)
    assert [("terminate", "alpha"), ("launch", "alpha", 4), ("launch", "newcomer", 1)] == [
        world.done[0],
        *sorted(world.done[1:]),
    ]


def test_a_live_key_is_handed_to_the_running_worker() -> None:
    """One order to configure; no restart, and the other line hears nothing."""
    world = play(FLEET, [reload(replace(ALPHA, heartbeat_interval=5.0), BETA)])
    assert [*STARTED, ("configure", "alpha", 1)] == world.done
    assert 5.0 == world.config.worker("alpha").heartbeat_interval  # type: ignore[union-attr]


def test_a_live_key_of_the_supervisors_own_needs_no_order() -> None:
    """Probes, restart policy and grace are taken into the record, and nobody is signalled."""
    probes = ProbePolicy(liveness=ProbeTiming(1.0, 1.0, 2))
    changed = replace(ALPHA, probes=probes, restart=RestartPolicy(max_crashes=1))
    world = play(FLEET, [reload(changed, BETA, shutdown_grace=3.0)])
    assert STARTED == world.done
    rules = world.pinned["alpha"].rules
    assert (probes, 1, 3.0) == (rules.probes, rules.restart.max_crashes, rules.grace)
    assert 3.0 == world.pinned["beta"].rules.grace


def test_new_live_probes_find_a_hung_line_sooner() -> None:
    """Shorter periods and thresholds count at once."""
    probes = ProbePolicy(liveness=ProbeTiming(1.0, 1.0, 2))

    def hang(world: FakeMachine) -> list[Any]:
        world.hung.add("alpha")
        return [ReloadAsked(fleet(replace(ALPHA, probes=probes), BETA))]

    world = play(FLEET, [hang, wait, wait])
    assert ("kill", "alpha") in world.done
    assert 2.0 == world.time


def test_a_restarting_key_restarts_that_line_alone() -> None:
    """With the reason, and without a restart counted."""
    world = play(FLEET, [reload(replace(ALPHA, verbose=True), BETA)])
    assert [*STARTED, ("terminate", "alpha"), ("launch", "alpha", 2)] == world.done
    assert ("restarted by a reload: verbose changed", 0) == (
        world.pinned["alpha"].asked,
        world.pinned["alpha"].restarts,
    )


def test_a_refused_reload_touches_nothing() -> None:
    """Other folders are refused whole: no line is added, restarted or configured, and it is said."""
    moved = replace(fleet(replace(ALPHA, port=9000), GAMMA), state_dir=Path("/elsewhere"))
    world = play(FLEET, [lambda _: [ReloadAsked(moved)]])
    assert (STARTED, ["reload_refused"]) == (world.done, told(world))
    assert "reload refused: state_dir cannot change while the fleet runs" == world.events[-1].text
    assert (["alpha", "beta"], False) == (sorted(world.pinned), hasattr(world, "config"))


def test_a_fleet_that_goes_down_takes_up_nothing() -> None:
    """A reload in the middle of a stop is refused."""
    world = play(FLEET, [stubborn("alpha"), lambda _: [DownAsked(), ReloadAsked(fleet(ALPHA, BETA, GAMMA))], wait])
    assert ["reload_refused"] == told(world)
    assert ("launch", "gamma", 1) not in world.done


def test_an_empty_reload_does_nothing_and_says_so() -> None:
    """The same file again."""
    world = play(FLEET, [reload(ALPHA, BETA)])
    assert (STARTED, "reloaded: nothing changed") == (world.done, world.events[-1].text)


def test_a_line_that_is_wanted_down_is_not_started_by_a_reload() -> None:
    """It takes its new settings up when the operator starts it."""
    changed = replace(BETA, verbose=True, restart=RestartPolicy(max_crashes=1))
    world = play(FLEET, [asked("beta", OperatorRequest.STOP), reload(ALPHA, changed)])
    assert (WorkerState.DOWN, "stopped by the operator") == (world.pinned["beta"].state, world.pinned["beta"].reason)
    assert ([*STARTED, ("terminate", "beta")], 1) == (world.done, world.pinned["beta"].rules.restart.max_crashes)
    world = play(
        FLEET, [asked("beta", OperatorRequest.STOP), reload(ALPHA, changed), asked("beta", OperatorRequest.START)]
    )
    assert ("launch", "beta", 2) == world.done[-1]


def test_a_quarantined_line_is_tried_again_with_its_new_settings() -> None:
    """Whoever mends fleet.yaml need not ask twice."""
    loopy = replace(BETA, restart=RestartPolicy(max_crashes=0))
    mended = replace(loopy, environment=(("TZ", "UTC"),))
    world = play(fleet(ALPHA, loopy), [lambda w: w.die("beta", KILLED), reload(ALPHA, mended)])
    assert (("launch", "beta", 2), WorkerState.READY) == (world.done[-1], world.pinned["beta"].state)


def test_a_line_that_comes_back_before_it_has_gone_has_its_new_rules() -> None:
    """Removed and added again by two reloads: the second one's word holds, in full."""
    again = replace(BETA, port=9001, restart=RestartPolicy(max_crashes=1))
    world = play(FLEET, [stubborn("beta"), reload(ALPHA), reload(ALPHA, again), wait])
    beta = world.pinned["beta"]
    assert [("kill", "beta"), ("launch", "beta", 2)] == world.done[-2:]
    assert (WorkerState.READY, 1, Wanted.UP) == (beta.state, beta.rules.restart.max_crashes, beta.wanted)


def test_the_dashboard_can_come_and_go_by_reload() -> None:
    """It is a worker like any other."""
    world = play(FLEET, [reload(ALPHA, BETA, dashboard=DashboardSpec()), reload(ALPHA, BETA)])
    assert [*STARTED, ("launch", "dashboard", 1), ("terminate", "dashboard")] == world.done
    assert ["alpha", "beta"] == sorted(world.pinned)


def test_keys_of_the_fleet_are_taken_up_by_the_effects() -> None:
    """Hooks and start order change without a signal to anybody."""
    world = play(FLEET, [reload(ALPHA, BETA, on_event=(Hook(("true",)),), startup=StartupPolicy(2))])
    assert (STARTED, (Hook(("true",)),)) == (world.done, world.config.on_event)


# --- turns ---


def lines(count: int) -> tuple[DatasiteSpec, ...]:
    return tuple(DatasiteSpec(f"line_{at:02d}", 8000 + at) for at in range(count))


def launches(world: FakeMachine) -> list[str]:
    return [did[1] for did in world.done if did[0] == "launch"]


def hanging(config: FleetConfig, *hung: str, script: int) -> FakeMachine:
    """The fleet starts with lines that never answer."""
    world = FakeMachine([wait] * script)
    world.hung |= set(hung)
    run(config, world)
    return world


def test_one_hanging_line_holds_up_none_of_twenty() -> None:
    """Four at a time on two cores: with one slot taken by the hanging line, the others are ready at once."""
    world = hanging(fleet(*lines(20)), "line_00", script=0)
    assert [spec.name for spec in lines(20)] == launches(world)
    ready = [name for name, record in world.pinned.items() if record.state is WorkerState.READY]
    assert ([spec.name for spec in lines(20)[1:]], 0.0) == (sorted(ready), world.time)


def test_a_hanging_line_holds_the_only_slot_for_a_while() -> None:
    """One at a time: the second starts when the first, never ready, has lost its slot; not when it has failed."""
    world = hanging(fleet(*lines(3), startup=StartupPolicy(1)), "line_00", script=9)
    assert ["line_00"] == launches(world)
    world = hanging(fleet(*lines(3), startup=StartupPolicy(1)), "line_00", script=11)
    assert ["line_00", "line_01", "line_02"] == launches(world)
    assert SLOT <= world.time < SLOT + 2.0


def test_never_more_at_once_than_the_limit() -> None:
    """When all hang, the first four are launched, and four more for each time that their slots are lost."""
    names = [spec.name for spec in lines(20)]
    assert names[:4] == launches(hanging(fleet(*lines(20)), *names, script=0))
    later = hanging(fleet(*lines(20)), *names, script=11)
    assert (names[:8], True) == (launches(later), SLOT <= later.time < 2 * SLOT)


def test_priority_and_the_dashboard_first() -> None:
    """What others register with comes first, then the higher priority, then the order of the file."""
    a, b, c = lines(3)
    config = fleet(a, replace(b, priority=-1), replace(c, priority=7), dashboard=DashboardSpec())
    assert ["dashboard", "line_02", "line_00", "line_01"] == launches(play(config, []))


def test_a_stagger_spreads_the_starts() -> None:
    """The third of three starts two staggers after the first."""
    world = play(fleet(*lines(3), startup=StartupPolicy(stagger=1.5)), [wait, wait])
    assert (["line_00", "line_01", "line_02"], 3.0) == (launches(world), world.time)


def test_a_stop_of_a_line_that_still_waits_for_its_turn() -> None:
    """It is down at once, is never launched, and holds nothing."""
    config = fleet(*lines(2), startup=StartupPolicy(1))
    world = FakeMachine([asked("line_01", OperatorRequest.STOP), *[wait] * 15])
    world.hung.add("line_00")
    run(config, world)
    down = world.pinned["line_01"]
    assert (["line_00"], WorkerState.DOWN, "stopped by the operator") == (launches(world), down.state, down.reason)


def test_a_fleet_can_go_down_while_launches_wait() -> None:
    """Nothing that waits for its turn is launched into a fleet that is going down."""
    config = fleet(*lines(6), startup=StartupPolicy(1))
    world = FakeMachine([lambda _: [DownAsked()]])
    world.hung.add("line_00")
    run(config, world)
    assert ([("launch", "line_00", 1), ("terminate", "line_00")], {}) == (world.done, world.alive)


def test_a_restart_of_a_line_that_still_waits_launches_it_once() -> None:
    """Asking twice is asking once."""
    config = fleet(*lines(2), startup=StartupPolicy(1))
    world = FakeMachine([asked("line_01", OperatorRequest.RESTART), *[wait] * 11])
    world.hung.add("line_00")
    run(config, world)
    assert ["line_00", "line_01"] == launches(world)
    assert WorkerState.READY == world.pinned["line_01"].state


# --- memory ---


def test_what_is_noted_is_what_step_made() -> None:
    """The journal of a whole life replays through ``step`` to the same records and orders."""
    changed = reload(
        replace(ALPHA, heartbeat_interval=5.0, verbose=True), replace(BETA, priority=3), GAMMA, shutdown_grace=3.0
    )
    script = [lambda w: w.die("beta", KILLED), lambda w: w.die("beta", KILLED), wait, changed, stubborn("gamma")]
    world = play(FLEET, [*script, lambda _: [DownAsked()], wait])
    records = {spec.name: WorkerRecord(spec.name, FLEET.rules(spec)) for spec in FLEET.workers}
    records["gamma"] = WorkerRecord("gamma", fleet(GAMMA, shutdown_grace=3.0).rules(GAMMA))
    for fact, made, now in world.noted:
        assert step(records[fact.name], fact, now) == made
        records[fact.name] = made.record
    kinds = {type(fact) for fact, _, _ in world.noted}
    assert {OperatorAsked, ProcessExited, RulesChanged} <= kinds
    assert {WorkerState.DOWN} == {record.state for record in records.values()}


def test_a_remembered_line_keeps_its_counts_and_one_that_was_stopped_stays_down() -> None:
    """What the last supervisor knew is not lost with it."""
    causes = {"signal": 2, "hung": 1}
    alpha = WorkerRecord("alpha", restarts=3, restarts_by_cause=causes, last_exit=KILLED)
    beta = WorkerRecord("beta", asked="stopped by the operator", reason="stopped by the operator")
    start = [OperatorAsked("alpha", OperatorRequest.START)]
    world = play(FLEET, [lambda w: w.die("alpha", KILLED)], {"alpha": alpha, "beta": beta}, start)
    assert (4, {"signal": 3, "hung": 1}) == (world.pinned["alpha"].restarts, world.pinned["alpha"].restarts_by_cause)
    assert (WorkerState.DOWN, "stopped by the operator") == (world.pinned["beta"].state, world.pinned["beta"].reason)
    assert [("launch", "alpha", 1), ("launch", "alpha", 2)] == world.done


def test_events_come_in_the_order_in_which_things_happened() -> None:
    """A crash of beta, told between the starts and the end."""
    world = play(FLEET, [lambda w: w.die("beta", KILLED), lambda _: [DownAsked()]])
    beta = [event.event for event in world.events if event.name == "beta"]
    kinds = [EventKind.STARTING, EventKind.READY, EventKind.EXITED, EventKind.STARTING, EventKind.READY]
    assert [*kinds, EventKind.STOPPING, EventKind.EXITED, EventKind.DOWN] == beta


def test_a_word_of_somebody_unknown_changes_nothing() -> None:
    """An exit, a pulse or a request for a line that was forgotten meanwhile is dropped."""
    world = play(FLEET, [reload(ALPHA), lambda _: [OperatorAsked("beta", OperatorRequest.START)]])
    assert [*STARTED, ("terminate", "beta")] == world.done
