"""Decisions about the fleet as a whole, without an engine: ``advance`` takes values and gives values."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cards import Card
from supervisor.facts import (
    DeadlineReached,
    Fact,
    LaunchFailed,
    LaunchSent,
    OperatorAsked,
    ProbeAnswered,
    ProcessAdopted,
    ProcessExited,
    ProcessStarted,
    PulseReceived,
    RulesChanged,
)
from supervisor.history import EventKind
from supervisor.messages import CardsLost, DownAsked, Signalled
from supervisor.orders import Configure, Kill, Launch, Order, Probe, Terminate
from supervisor.policy.admission import SLOT
from supervisor.policy.fleet import (
    DASHBOARD_PRIORITY,
    FleetMessage,
    FleetState,
    GpuLoss,
    Member,
    Outcome,
    Reload,
    Tick,
    advance,
    begin,
    gpu_found,
    is_down,
    next_due,
    reload_of,
    shows,
)
from supervisor.policy.placement import Placement
from supervisor.record import By, ExitCause, ExitKind, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import (
    DASHBOARD_NAME,
    DashboardSpec,
    DatasiteSpec,
    FleetConfig,
    HostLimits,
    RestartPolicy,
    Rules,
    StartupPolicy,
)
from tests.unit.fakes import fleet, status

ALPHA, BETA, GAMMA = DatasiteSpec("alpha", 8080), DatasiteSpec("beta", 8081), DatasiteSpec("gamma", 8082)
CONFIG = fleet(ALPHA, BETA)
ENDED = ExitCause(ExitKind.CLEAN, "exit code 0", 0)
TICK = Tick(cores=2)


def after(state: FleetState, *messages: FleetMessage, now: float = 0.0) -> FleetState:
    for message in messages:
        state = advance(state, message, now).state
    return state


def asked(name: str, request: OperatorRequest = OperatorRequest.START, by: By = By.OPERATOR) -> OperatorAsked:
    return OperatorAsked(name, request, by)


def serving(*names: str, config: FleetConfig = CONFIG, now: float = 0.0) -> FleetState:
    """These workers run, each with a pid of its own, and answer; the others are down."""
    state = after(begin(config), *map(asked, names), TICK, now=now)
    for pid, name in enumerate(names, 1000):
        born = ProcessStarted(name, 1, pid, pid)
        state = after(state, born, ProbeAnswered(name, 1, status(name, 1, pid)), now=now)
    return state


def exited(state: FleetState, name: str) -> ProcessExited:
    return ProcessExited(name, state.records[name].generation, ENDED)


def facts(made: Outcome) -> list[Fact]:
    return [fact for fact, _ in made.steps]


def orders(made: Outcome) -> list[tuple[type[Order], str]]:
    return [(type(order), order.name) for order in made.orders]


def states(state: FleetState) -> dict[str, str]:
    return {name: record.state.value for name, record in state.records.items()}


# --- the value itself ---


def test_a_fleet_begins_with_everybody_down() -> None:
    """Nothing is due, nothing waits, and what is kept of a spec is no secret."""
    config = fleet(replace(ALPHA, priority=3), dashboard=DashboardSpec(port=5001), startup=StartupPolicy(2))
    state = begin(config)
    assert {"dashboard": "down", "alpha": "down"} == states(state)
    rules = config.rules(ALPHA)
    assert {"dashboard": Member(5001, DASHBOARD_PRIORITY, rules), "alpha": Member(8080, 3, rules)} == state.members
    assert (StartupPolicy(2), None, False, False) == (state.startup, next_due(state), state.stopping, is_down(state))


def test_what_was_remembered_replaces_a_fresh_record() -> None:
    """The counts of a supervisor that was killed."""
    past = WorkerRecord("alpha", restarts=3)
    assert (3, 0) == tuple(record.restarts for record in begin(CONFIG, {"alpha": past}).records.values())


def test_advance_changes_nothing_that_it_was_given() -> None:
    """The state before is whole afterwards, so that it can be compared with the one after."""
    state = begin(CONFIG)
    held = replace(
        state,
        members=MappingProxyType(dict(state.members)),
        records=MappingProxyType(dict(state.records)),
        ports=MappingProxyType({}),
    )
    before = {each.name: getattr(held, each.name) for each in fields(held)}
    moved = after(held, asked("alpha"), TICK, ProcessStarted("alpha", 1, 7, 7), DownAsked())
    assert before == {each.name: getattr(held, each.name) for each in fields(held)}
    assert moved != held


@pytest.mark.parametrize(
    "message",
    [
        asked("nobody"),
        ProcessExited("nobody", 1, ENDED),
        status("nobody", 1, 5),
        Signalled("SIGHUP"),
        Signalled("SIGCHLD"),
        TICK,
    ],
)
def test_what_concerns_nobody_changes_nothing(message: FleetMessage) -> None:
    """Words of a worker that was forgotten meanwhile, and signals that are meant for others."""
    state = serving("alpha", "beta")
    assert Outcome(state) == advance(state, message, 1.0)


def test_what_is_no_message_is_an_error() -> None:
    """Types forbid it; where they are not asked, it does not pass in silence."""
    with pytest.raises(AssertionError):
        advance(begin(CONFIG), Member(1, 1, Rules()), 0.0)  # type: ignore[arg-type]


# --- facts and pulses ---


def test_a_fact_is_kept_with_what_was_made_of_it() -> None:
    """For the journal; orders and events come along."""
    state = serving("alpha")
    made = advance(state, asked("alpha", OperatorRequest.STOP), 1.0)
    ((fact, step),) = made.steps
    assert (asked("alpha", OperatorRequest.STOP), made.state.records["alpha"]) == (fact, step.record)
    assert ([(Terminate, "alpha")], [EventKind.STOPPING]) == (orders(made), [event.event for event in made.events])


@pytest.mark.parametrize(("pid", "heard"), [(1000, True), (1001, False)])
def test_a_pulse_counts_when_it_is_of_the_present_process(pid: int, heard: bool) -> None:
    """A stranger that uses the name of a line tells nothing about it."""
    said = status("alpha", 1, pid, registered=True)
    made = advance(serving("alpha"), said, 1.0)
    assert ([PulseReceived("alpha", 1, said)] if heard else []) == facts(made)


def test_a_pulse_may_come_before_the_process_is_known() -> None:
    """The worker speaks as soon as it lives; the launcher's thread may be slower."""
    state = after(begin(CONFIG), asked("alpha"), TICK)
    assert [PulseReceived] == [type(fact) for fact in facts(advance(state, status("alpha", 1, 5), 0.0))]


# --- whose turn it is ---


def test_a_launch_waits_for_the_tick() -> None:
    """All that arrived together is sorted by priority first."""
    state = after(begin(CONFIG), asked("alpha"))
    assert ["alpha"] == [held.name for held in state.queue]
    made = advance(state, TICK, 3.0)
    assert ([LaunchSent("alpha", 1)], (Launch("alpha", 1),)) == (facts(made), made.orders)
    assert ((), 3.0, {"alpha": 8080}) == (made.state.queue, made.state.last_sent, made.state.ports)


def test_the_dashboard_starts_first_then_the_higher_priority() -> None:
    """Whatever the order of the requests."""
    config = fleet(ALPHA, replace(BETA, priority=1), dashboard=DashboardSpec())
    state = after(begin(config), asked("alpha"), asked("beta"), asked(DASHBOARD_NAME))
    assert [DASHBOARD_NAME, "beta", "alpha"] == [order.name for order in advance(state, TICK, 0.0).orders]


def test_who_has_no_turn_yet_is_asked_again_when_a_slot_is_lost() -> None:
    """The deadline is the engine's, until nobody waits any more."""
    config = fleet(ALPHA, BETA, startup=StartupPolicy(1))
    state = after(begin(config), asked("alpha"), asked("beta"), TICK)
    assert (SLOT, SLOT, 1) == (state.turn_due, next_due(state), len(state.queue))
    later = after(state, TICK, now=SLOT)
    assert ((), SLOT, {"alpha": 8080, "beta": 8081}) == (later.queue, later.last_sent, later.ports)
    assert (SLOT, None) == (state.turn_due, after(later, TICK, now=SLOT).turn_due)


@pytest.mark.parametrize("end", [lambda state: exited(state, "alpha"), lambda state: LaunchFailed("alpha", 1, "full")])
def test_a_port_is_free_when_its_process_has_ended(end: Any) -> None:
    """Not when the spec has moved away: the process still listens where it was launched."""
    config = fleet(ALPHA, replace(BETA, port=8080))
    state = after(begin(config), asked("alpha"), TICK, asked("beta"), TICK)
    assert (["beta"], None) == ([held.name for held in state.queue], state.turn_due)
    assert "alpha" not in after(state, end(state)).ports


def test_an_end_of_an_older_process_frees_no_port() -> None:
    """It speaks of a process that is gone."""
    state = serving("alpha")
    assert {"alpha": 8080} == after(state, ProcessExited("alpha", 0, ENDED), LaunchFailed("alpha", 0, "")).ports


def test_an_adopted_process_has_the_port_it_was_launched_with() -> None:
    """fleet.yaml may have moved it since."""
    assert {"alpha": 9000} == after(begin(CONFIG), ProcessAdopted("alpha", 4, 7, 7, 60.0, 9000)).ports


def test_a_launch_that_waits_is_taken_back_by_a_stop() -> None:
    """The worker is down at once, and nothing is launched."""
    state = after(begin(CONFIG), asked("alpha"))
    made = advance(state, asked("alpha", OperatorRequest.STOP), 0.0)
    assert [OperatorAsked, LaunchFailed] == [type(fact) for fact in facts(made)]
    assert ((), "down", ()) == (made.state.queue, states(made.state)["alpha"], advance(made.state, TICK, 0.0).orders)


def test_a_launch_under_way_is_not_taken_back() -> None:
    """Its process may be there already; the SIGTERM meets it."""
    state = after(begin(CONFIG), asked("alpha"), TICK)
    made = advance(state, asked("alpha", OperatorRequest.STOP), 0.0)
    assert ([OperatorAsked], "stopping") == ([type(fact) for fact in facts(made)], states(made.state)["alpha"])


def test_a_worker_waits_once() -> None:
    """Whatever it is told while it waits."""
    state = after(begin(CONFIG), asked("alpha"), ProcessExited("alpha", 1, ENDED))
    assert [("alpha", 2)] == [(held.name, held.generation) for held in state.queue]


def test_a_recorded_launch_leaves_the_queue_as_one_that_was_admitted() -> None:
    """A replay reads ``LaunchSent`` where the engine had its turn."""
    state = after(begin(CONFIG), asked("alpha"), LaunchSent("alpha", 1), now=2.0)
    assert ((), 2.0, {"alpha": 8080}) == (state.queue, state.last_sent, state.ports)


# --- deadlines ---


def test_a_tick_takes_every_deadline_that_has_come_and_no_other() -> None:
    """A probe is due when its period is over."""
    state = serving("alpha")
    due = next_due(state)
    assert due is not None
    assert [] == facts(advance(state, TICK, due - 0.001))
    made = advance(state, TICK, due)
    assert ([DeadlineReached("alpha", 1)], [(Probe, "alpha")]) == (facts(made), orders(made))


# --- down ---

WITH_BOARD = fleet(ALPHA, BETA, dashboard=DashboardSpec())


def test_the_fleet_stops_its_datasites_first_and_the_dashboard_last() -> None:
    """The last beat of each datasite still finds it; each is asked once."""
    state = serving("alpha", "beta", DASHBOARD_NAME, config=WITH_BOARD)
    made = advance(state, DownAsked(), 1.0)
    assert [(Terminate, "alpha"), (Terminate, "beta")] == orders(made)
    assert {By.FLEET} == {fact.by for fact in facts(made) if isinstance(fact, OperatorAsked)}
    one_left = after(made.state, exited(made.state, "alpha"), TICK)
    assert ("ready", []) == (states(one_left)[DASHBOARD_NAME], orders(advance(one_left, DownAsked(), 1.0)))
    none_left = after(one_left, exited(one_left, "beta"))
    last = advance(none_left, TICK, 1.0)
    assert ([(Terminate, DASHBOARD_NAME)], False) == (orders(last), is_down(last.state))
    assert ([], []) == (orders(advance(last.state, TICK, 1.0)), orders(advance(last.state, DownAsked(), 1.0)))
    assert is_down(after(last.state, exited(last.state, DASHBOARD_NAME)))


def test_a_dashboard_alone_is_stopped_at_once() -> None:
    """There is nobody that it has to wait for."""
    state = serving(DASHBOARD_NAME, config=WITH_BOARD)
    assert (Terminate, DASHBOARD_NAME) in orders(advance(state, DownAsked(), 1.0))


def test_a_fleet_without_a_dashboard_waits_for_its_datasites_alone() -> None:
    """It is down with the last of them."""
    state = after(serving("alpha"), DownAsked())
    assert (False, True) == (is_down(state), is_down(after(state, exited(state, "alpha"), TICK)))


def test_a_fleet_at_rest_is_not_down_before_it_was_asked() -> None:
    """All datasites stopped by the operator: the supervisor stays."""
    assert not is_down(begin(CONFIG))


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_stops_and_the_second_kills_what_is_left(name: str) -> None:
    """Only what has a process."""
    state = serving("alpha")
    first = advance(state, Signalled(name), 1.0)
    assert [(Terminate, "alpha")] == orders(first)
    second = advance(first.state, Signalled(name), 1.0)
    assert ((Kill("alpha", 1, 1000),), [], first.state) == (second.orders, facts(second), second.state)


# --- reload ---


def reload(new: FleetConfig, old: FleetConfig = CONFIG, **placement: Any) -> Reload:
    return reload_of(old, new, Placement(**placement))


def told(made: Outcome) -> list[str]:
    return [event.text for event in made.events if event.name == "fleet"]


def test_a_reload_touches_only_what_differs() -> None:
    """One comes, one goes, and who stays hears nothing; the placement holds from now on."""
    placement = Placement({"alpha": ("GPU-0",)})
    made = advance(serving("alpha", "beta"), reload_of(CONFIG, fleet(ALPHA, GAMMA), placement), 1.0)
    stop = OperatorAsked("beta", OperatorRequest.STOP, By.RELOAD, "no longer in fleet.yaml")
    start = OperatorAsked("gamma", OperatorRequest.START, By.RELOAD, "new in fleet.yaml")
    assert ([stop, start], [(Terminate, "beta")]) == (facts(made), orders(made))
    assert (frozenset(("alpha", "gamma")), placement) == (made.state.listed, made.placement)
    assert ["reloaded: gamma added; beta removed"] == told(made)
    assert {"alpha", "beta", "gamma"} == made.state.records.keys()


def test_a_removed_worker_is_forgotten_once_it_is_down() -> None:
    """With everything that was known of it; one that is still on its way out is not."""
    state = after(serving("alpha", "beta"), reload(fleet(ALPHA)))
    assert {"alpha", "beta"} == after(state, TICK).records.keys()
    gone = after(state, exited(state, "beta"), TICK)
    assert {"alpha"} == gone.records.keys() == gone.members.keys() == gone.ports.keys()


def test_a_removed_worker_that_is_down_is_neither_stopped_nor_restarted() -> None:
    """A stop of the fleet, or the next reload, does not ask what nobody knows any more."""
    state = after(serving("alpha"), reload(fleet(ALPHA)))
    assert "down" == states(state)["beta"]
    assert ["alpha"] == [fact.name for fact in facts(advance(state, DownAsked(), 1.0))]
    back = after(state, reload(CONFIG, fleet(ALPHA)))
    assert (1, "starting") == (back.records["beta"].generation, states(back)["beta"])


@pytest.mark.parametrize("rules", [True, False])
def test_a_worker_that_is_back_before_it_has_gone_is_kept(rules: bool) -> None:
    """Its process ends, and another one follows, with the rules of the second reload."""
    again = replace(BETA, port=9001, restart=RestartPolicy(max_crashes=1)) if rules else BETA
    state = after(serving("alpha", "beta"), reload(fleet(ALPHA)))
    made = advance(state, reload(fleet(ALPHA, again), fleet(ALPHA)), 1.0)
    assert ([RulesChanged] if rules else []) + [OperatorAsked] == [type(fact) for fact in facts(made)]
    beta = made.state.records["beta"]
    assert (WorkerState.STOPPING, Wanted.UP, again.restart) == (beta.state, beta.wanted, beta.rules.restart)
    relaunched = after(made.state, exited(made.state, "beta"), TICK)
    assert (2, again.port) == (relaunched.records["beta"].generation, relaunched.ports["beta"])


def test_a_key_that_restarts_restarts_that_worker_with_its_reason() -> None:
    """Unless it is wanted down: then it takes the new setting up at its next start."""
    changed = reload(fleet(replace(ALPHA, verbose=True), replace(BETA, verbose=True)))
    made = advance(serving("alpha"), changed, 1.0)
    assert [OperatorAsked("alpha", OperatorRequest.RESTART, By.RELOAD, "verbose changed")] == facts(made)


def test_a_key_that_the_worker_takes_up_is_handed_to_it() -> None:
    """One that is the supervisor's own changes its rules, and nobody is signalled."""
    heartbeat = advance(serving("alpha"), reload(fleet(replace(ALPHA, heartbeat_interval=5.0), BETA)), 1.0)
    assert ([RulesChanged("alpha", CONFIG.rules(ALPHA), told=True)], [(Configure, "alpha")]) == (
        facts(heartbeat),
        orders(heartbeat),
    )
    grace = advance(serving("alpha"), reload(fleet(ALPHA, BETA, shutdown_grace=3.0)), 1.0)
    rules = Rules(grace=3.0)
    assert ([RulesChanged("alpha", rules), RulesChanged("beta", rules)], []) == (facts(grace), orders(grace))


def test_limits_of_the_host_reach_lines_whose_own_keys_did_not_change() -> None:
    """Each has its part of them."""
    changed = reload(fleet(ALPHA, BETA, host=HostLimits(disk_space_threshold_gb=1.0)))
    assert ("alpha", "beta") == changed.told
    assert [(Configure, "alpha")] == orders(advance(serving("alpha"), changed, 1.0))


def test_a_reload_takes_up_how_many_start_at_once() -> None:
    """From the next turn on."""
    assert StartupPolicy(1) == after(begin(CONFIG), reload(fleet(ALPHA, BETA, startup=StartupPolicy(1)))).startup


@pytest.mark.parametrize(
    ("asked_for", "stopping", "why"),
    [
        (reload(replace(fleet(GAMMA), log_dir=Path("/x"))), False, "log_dir cannot change while the fleet runs"),
        (reload(fleet(GAMMA), problems={"gamma": "there is no GPU"}), False, "gamma: gpu: there is no GPU"),
        (reload(fleet(GAMMA)), True, "the fleet is stopping"),
    ],
)
def test_a_refused_reload_changes_nothing_at_all(asked_for: Reload, stopping: bool, why: str) -> None:
    """It is told with its reason, as a warning."""
    state = replace(serving("alpha"), stopping=stopping)
    made = advance(state, asked_for, 1.0)
    assert Outcome(state, events=made.events) == made
    ((event),) = made.events
    assert (EventKind.RELOAD_REFUSED, f"reload refused: {why}", True) == (event.event, event.text, event.warning)


# --- GPUs ---

CARDS = (Card("GPU-0", 0, "H100", 80, 80),)
HAD: dict[str, tuple[str, ...]] = {"alpha": ("GPU-1",), "beta": ("GPU-1",)}


def loss(placement: Placement, *waiting: str, **lost: str) -> GpuLoss:
    return GpuLoss(CardsLost(lost, HAD, CARDS, waiting), placement)


def test_who_lost_a_gpu_restarts_on_another() -> None:
    """The event says which; a line that is down has it at its next start, and no line but ours is spoken of."""
    placement = Placement({"alpha": ("GPU-0",), "beta": ()}, moved=("alpha", "beta"))
    made = advance(serving("alpha"), loss(placement, alpha="gone", beta="gone", stranger="gone"), 1.0)
    assert [OperatorAsked("alpha", OperatorRequest.RESTART, By.GPU_LOST, "gpu")] == facts(made)
    ends = {event.name: event.text.rpartition("; ")[2] for event in made.events if event.event == EventKind.GPU_LOST}
    assert {"alpha": "it now uses GPU-0", "beta": "it now uses the CPU"} == ends
    assert placement == made.placement


def test_who_can_have_no_other_gpu_stays_as_it_is() -> None:
    """It keeps the one it had on paper, and is not restarted."""
    placement = Placement(
        {"alpha": (), "beta": (), "new": ()}, problems={"alpha": "there is no GPU", "new": "x"}, moved=("alpha",)
    )
    made = advance(serving("alpha"), loss(placement, alpha="gone", elsewhere="gone"), 1.0)
    assert made.placement is not None
    assert ([], ("GPU-1",), ()) == (
        facts(made),
        made.placement.assignments["alpha"],
        made.placement.assignments["new"],
    )
    (event,) = made.events
    assert "its GPU is no longer usable (gone); there is no GPU" == event.text


def test_who_waited_for_the_driver_is_told_of_its_gpu() -> None:
    """Nobody is interrupted; who still has none is told nothing, and neither is who was forgotten."""
    placement = Placement({"alpha": ("GPU-0",), "beta": (), "stranger": ("GPU-0",)})
    made = advance(serving("alpha"), loss(placement, "alpha", "beta", "stranger"), 1.0)
    assert ([], (gpu_found("alpha", ("GPU-0",)),)) == (facts(made), made.events)


def test_a_fleet_that_goes_down_moves_nobody() -> None:
    """Its GPUs are free soon."""
    state = after(serving("alpha"), DownAsked())
    assert Outcome(state) == advance(state, loss(Placement({"alpha": ()}, moved=("alpha",)), alpha="gone"), 1.0)


# --- pictures ---


def test_a_picture_is_another_one_when_something_that_it_shows_has_changed() -> None:
    """A probe that went well is not shown, a worker that is gone is."""
    state = serving("alpha")
    assert not shows(state, state)
    probed = replace(state.records["alpha"], probe_pending=True)
    assert not shows(state, replace(state, records={**state.records, "alpha": probed}))
    assert shows(state, after(state, status("alpha", 1, 1000, registered=True)))
    assert shows(state, replace(state, stopping=True))
    assert shows(state, replace(state, records={"alpha": state.records["alpha"]}))


# --- whatever happens ---

_NAMES = st.sampled_from(["alpha", "beta", "gamma", "nobody"])
_GENERATIONS = st.integers(0, 3)
_CONFIGS = st.sampled_from([CONFIG, fleet(ALPHA), fleet(ALPHA, BETA, GAMMA), fleet(replace(ALPHA, port=9000), BETA)])
_MESSAGES = st.one_of(
    st.builds(OperatorAsked, _NAMES, st.sampled_from(OperatorRequest)),
    st.builds(ProcessStarted, _NAMES, _GENERATIONS, st.integers(1, 9), st.integers(1, 9)),
    st.builds(ProcessExited, _NAMES, _GENERATIONS, st.just(ENDED)),
    st.builds(LaunchFailed, _NAMES, _GENERATIONS, st.just("no")),
    st.builds(lambda name, generation: status(name, generation, 5), _NAMES, _GENERATIONS),
    st.sampled_from([TICK, TICK, TICK, Signalled("SIGHUP")]),
    _CONFIGS,
    st.just(DownAsked()),
)


@given(st.lists(_MESSAGES, max_size=40))
def test_whatever_arrives_the_fleet_stays_consistent(messages: list[FleetMessage | FleetConfig]) -> None:
    """Every record has its member; nobody waits twice; no two processes share a port; a stop is never taken back.

    A configuration stands for a reload to it from the one that is.
    """
    config, state = CONFIG, begin(CONFIG)
    for at, message in enumerate(messages):
        made = advance(state, reload(message, config) if isinstance(message, FleetConfig) else message, float(at))
        if isinstance(message, FleetConfig) and made.placement is not None:
            config = message
        assert made.state.records.keys() == made.state.members.keys() >= made.state.listed
        assert {spec.name for spec in config.workers} == made.state.listed
        waiting = [held.name for held in made.state.queue]
        assert sorted(set(waiting)) == sorted(waiting)
        assert len(set(made.state.ports.values())) == len(made.state.ports)
        assert made.state.stopping >= state.stopping
        assert {order.name for order in made.orders} <= made.state.records.keys()
        state = made.state
