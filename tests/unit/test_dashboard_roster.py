"""What the dashboard makes of beats and of silence: driven call by call, with a clock that is turned by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from central.dashboard import roster as roster_module
from central.dashboard.liveness import FactoryStatus, Now, Thresholds, judge, worsens_after
from central.dashboard.roster import Full, Recent, Roster
from central.dashboard.store import Batch, Factory, MeanLoad
from central.dashboard.wire import CurrentLoad, FactoryView, Heartbeat, Registration

START = 1_800_000_000.0


def at(seconds: float, jump: float = 0.0) -> Now:
    """So long after the start; ``jump``: by how much the wall clock was set."""
    return Now(START + seconds + jump, 1000.0 + seconds)


def registration(name: str = "alpha", **more: Any) -> Registration:
    return Registration(factory_name=name, factory_hostname="plant", factory_port=8080, **more)


def beat(name: str = "alpha", cpu: float | None = None, **more: Any) -> Heartbeat:
    load = None if cpu is None else CurrentLoad(cpu_usage=cpu)
    return Heartbeat(factory_name=name, current_load=load, **more)


@pytest.fixture
def roster() -> Roster:
    made = Roster(Thresholds(), at(0))
    made.register(registration(device="cpu", region="Michigan", location="Hall 3"), at(0))
    return made


def told(roster: Roster, now: Now, name: str = "alpha") -> dict[str, Any]:
    listed: list[dict[str, Any]] = json.loads(roster.all(now))["factories"]
    return next(one for one in listed if one["factory_name"] == name)


@pytest.mark.parametrize(
    ("silence", "status"),
    [(-5.0, "running"), (0.0, "running"), (44.9, "running"), (45.0, "late"), (89.9, "late"), (90.0, "offline")],
)
def test_silence_decides(roster: Roster, silence: float, status: str) -> None:
    """Running, late from 45 s on, offline from 90 s on; a clock that went back counts as now."""
    assert status == judge(silence, Thresholds())
    assert status == told(roster, at(silence))["status"]


def test_only_what_can_get_worse_is_waited_for() -> None:
    """An offline factory costs nothing until it beats."""
    thresholds = Thresholds(10.0, 20.0)
    assert [10.0, 20.0, None] == [worsens_after(status, thresholds) for status in FactoryStatus]


@pytest.mark.parametrize(("late", "offline"), [(0, 90), (-1, 90), (91, 90), (float("nan"), 90), (45, float("inf"))])
def test_thresholds_that_make_no_sense_are_refused(late: float, offline: float) -> None:
    """Late before offline, above zero, finite."""
    with pytest.raises(ValueError, match="late_after must be above 0"):
        Thresholds(late, offline)


def test_each_change_is_told_with_the_moment_it_came_about(roster: Roster) -> None:
    """Also where nobody looked at that moment: late at 45 s, offline at 90 s, running at the beat."""
    roster.take_unwritten()
    roster.advance(at(46))
    roster.advance(at(100))
    roster.beat(beat(), at(200))
    changes = [(change.status, change.at - START) for change in roster.take_unwritten().changes]
    assert [("late", 45.0), ("offline", 90.0), ("running", 200.0)] == changes


def test_a_deadline_is_known_until_a_factory_is_offline(roster: Roster) -> None:
    """So that the dashboard sleeps until then, and for ever once all are offline."""
    seen = []
    for moment in (0, 45, 90):
        roster.advance(at(moment))
        seen.append(roster.next_deadline())
    assert [1045.0, 1090.0, None] == seen
    roster.beat(beat(), at(100))
    assert 1145.0 == roster.next_deadline()


def test_a_wall_clock_that_is_set_makes_nobody_offline(roster: Roster) -> None:
    """An hour forwards: still running. An hour back: still late in its time."""
    assert "running" == told(roster, at(10, jump=3600))["status"]
    assert "late" == told(roster, at(50, jump=-3600))["status"]


def test_a_beat_changes_only_what_it_tells(roster: Roster) -> None:
    """Null and absence leave what is known."""
    roster.beat(beat(cpu=12.0, active_experiments=["fit"], region="Ohio"), at(1))
    roster.beat(beat(device="cuda:0"), at(2))
    now = told(roster, at(2))
    assert ("plant", 8080, "cuda:0", "Ohio", "Hall 3", ["fit"]) == tuple(
        now[key] for key in ("hostname", "port", "device", "region", "location", "active_experiments")
    )
    assert 12.0 == now["load"]["cpu_usage"]


def test_a_registration_tells_all_of_a_factory_but_its_past(roster: Roster) -> None:
    """Known again: its first registration and its last beat stay, region and device are as told now."""
    roster.beat(beat(cpu=1.0), at(5))
    before = told(roster, at(6))
    roster.register(registration(capabilities={"data_types": ["tabular"]}), at(10))
    after = told(roster, at(10))
    assert (before["registered_at"], before["last_heartbeat"]) == (after["registered_at"], after["last_heartbeat"])
    assert ("", "", {"data_types": ["tabular"]}) == (after["region"], after["device"], after["capabilities"])


def test_a_beat_of_an_unknown_factory_is_none(roster: Roster) -> None:
    """It leaves no trace."""
    assert roster.beat(beat("beta"), at(0)) is False
    assert "beta" not in roster
    assert 1 == len(roster)


def test_the_list_is_what_its_model_says(roster: Roster) -> None:
    """The hand-made JSON has the keys of FactoryView, in its order, and validates."""
    roster.beat(beat(cpu=33.0, last_training_completion="2026-01-01T00:00:00+00:00"), at(61))
    now = told(roster, at(62))
    assert list(FactoryView.model_fields) == list(now)
    assert 1.0 == FactoryView.model_validate(now).silence_s


def test_names_come_in_order(roster: Roster) -> None:
    """Whatever the order of their registrations."""
    for name in ("gamma", "beta"):
        roster.register(registration(name), at(0))
    assert ["alpha", "beta", "gamma"] == [one["factory_name"] for one in json.loads(roster.all(at(0)))["factories"]]


def test_there_is_a_most(roster: Roster, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger cannot fill the memory; those that are known may register again."""
    monkeypatch.setattr(roster_module, "MOST_FACTORIES", 1)
    with pytest.raises(Full):
        roster.register(registration("beta"), at(0))
    roster.register(registration(), at(1))
    assert 1 == len(roster)


def test_beats_of_a_minute_are_averaged(roster: Roster) -> None:
    """Two minutes, the first with a mean of 30; a beat without a load counts, and changes no mean."""
    roster.take_unwritten()
    for second, cpu in ((0, 20.0), (20, 40.0), (40, None), (60, 70.0)):
        roster.beat(beat(cpu=cpu), at(second))
    loads = [(load.at - START, load.beats, load.cpu) for load in roster.take_unwritten().loads]
    assert [(0, 3, 30.0), (60, 1, 70.0)] == loads
    assert [30, 70] == told(roster, at(61))["recent_load"]["cpu"]


def test_the_recent_load_is_an_hour_with_its_gaps() -> None:
    """Minutes without a beat are None; what is older than an hour is gone."""
    recent = Recent()
    for minute, cpu in ((0, 5.0), (2, 7.4), (1, 99.0), (59, None), (61, 9.0)):
        recent.note(minute * 60 + 1_800_000_000, cpu)
    now = recent.document()
    assert (60, 7, 9) == (now["step_s"], now["cpu"][0], now["cpu"][-1])
    assert 60 == len(now["cpu"])


def test_what_could_not_be_written_is_taken_again(roster: Roster) -> None:
    """With the newest state of each, and every change once, in order."""
    roster.beat(beat(cpu=1.0), at(0))
    failed = roster.take_unwritten()
    assert Batch() == roster.take_unwritten()
    roster.put_back(failed)
    roster.beat(beat(cpu=3.0), at(61))
    again = roster.take_unwritten()
    assert [at(61).wall] == [factory.last_seen for factory in again.factories]
    assert ["running"] == [change.status for change in again.changes]
    assert [(0.0, 1.0), (60.0, 3.0)] == [(load.at - START, load.cpu) for load in again.loads]


def kept(status: str, silent: float) -> Factory:
    return Factory("alpha", "plant", 8080, "cpu", "", b"{}", START - 9e3, START - silent, status=status)


@pytest.mark.parametrize(
    ("status", "silent", "then"),
    [("running", 5.0, "running"), ("running", 600.0, "running"), ("late", 60.0, "late"), ("late", 600.0, "offline")],
)
def test_after_a_restart_one_that_ran_has_its_time_to_beat(status: str, silent: float, then: str) -> None:
    """It was the dashboard that was away; one that was late or offline before has no such excuse."""
    roster = Roster(Thresholds(), at(0), [kept(status, silent)])
    now = told(roster, at(0))
    assert (then, silent) == (now["status"], now["silence_s"])
    assert "running" != told(roster, at(46))["status"]


def test_after_a_restart_a_minute_goes_on() -> None:
    """Its mean counts the beats of before."""
    minutes = [MeanLoad("alpha", int(START), 3, 20.0), MeanLoad("forgotten", int(START), 1, 1.0)]
    roster = Roster(Thresholds(), at(30), [kept("running", 0.0)], minutes)
    roster.beat(beat(cpu=60.0), at(30))
    assert [(4, 30.0)] == [(load.beats, load.cpu) for load in roster.take_unwritten().loads]
