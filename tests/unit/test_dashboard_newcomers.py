"""How many new factories one address may bring, and what the memory holds at most."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from central.dashboard.app import create_app
from central.dashboard.liveness import Now, Thresholds
from central.dashboard.newcomers import HOUR, NEW_PER_HOUR, Newcomers
from central.dashboard.roster import MOST_FACTORIES, Roster
from central.dashboard.wire import CurrentLoad, Heartbeat, Registration
from tests.unit.test_dashboard_app import Clock


def bring(account: Newcomers, address: str, tick: float) -> float:
    """One that waits is not brought."""
    if not (wait := account.wait(address, tick)):
        account.note(address, tick)
    return wait


def test_a_plant_brings_some_hundred_at_once() -> None:
    """A thousand within a second, from one address; the next one waits for seconds, not for an hour."""
    account = Newcomers()
    assert {0.0} == {bring(account, "10.0.0.1", number / 1000) for number in range(NEW_PER_HOUR)}
    assert 0.0 < bring(account, "10.0.0.1", 1.0) <= HOUR / NEW_PER_HOUR
    assert 0.0 == bring(account, "10.0.0.2", 1.0)


def test_within_an_hour_after_a_full_one_come_as_many_again() -> None:
    """However it asks, an address brings no more than twice the number within an hour, and no more than it later."""
    account = Newcomers(60)
    brought = [sum(bring(account, "a", hour * HOUR + 10.0 * step) == 0 for step in range(360)) for hour in range(3)]
    assert 60 <= brought[1] == brought[2] <= 61
    assert brought[0] <= 120


def test_who_waits_as_told_may_come() -> None:
    """The seconds that are told are enough."""
    account = Newcomers(3)
    for _ in range(3):
        account.note("a", 5.0)
    wait = account.wait("a", 5.0)
    assert HOUR / 3 == pytest.approx(wait)
    assert 0.0 == account.wait("a", 5.0 + wait + 0.001)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("no address", "x" * 9000, True),
    ],
)
def test_one_host_is_one_address(one: str, other: str, same: bool) -> None:
    """All of a network of IPv6, which a single host has; and whatever a proxy made up that is none."""
    account = Newcomers(1)
    account.note(one, 0.0)
    assert same == (account.wait(other, 0.0) > 0)


def test_the_thousandth_and_first_is_told_when_to_come_again(tmp_path: Path) -> None:
    """429 with the seconds and what to do; those that are known register and beat on; later it is taken."""
    clock = Clock()
    with TestClient(create_app(tmp_path / "d.db", clock=clock, new_per_hour=2)) as client:

        def register(name: str) -> int:
            body = {"factory_name": name, "factory_hostname": "h", "factory_port": 1}
            return client.post("/register_factory", json=body).status_code

        assert [200, 200, 429, 200] == [register(name) for name in ("a", "b", "c", "a")]
        body = {"factory_name": "c", "factory_hostname": "h", "factory_port": 1}
        refused = client.post("/register_factory", json=body)
        assert "1800" == refused.headers["retry-after"]
        assert "try again in 1800 s" in refused.json()["detail"]
        assert 200 == client.post("/heartbeat", json={"factory_name": "a"}).status_code
        clock.passed = 1800.0
        assert 200 == register("c")


def test_all_at_their_largest_fit_into_the_memory_that_is_stated() -> None:
    """docs/dashboard.md says 640 MiB: every text as long as it may be, and of the widest letters."""
    roster, count = Roster(Thresholds(), Now(0.0, 0.0)), 200
    before = _traced()
    for number in range(count):
        wide = f"{number:04}" + "\U0001f600" * 251
        host, name, place, word = wide, wide[:128], wide[:128], wide[:64]
        told = {"device": word, "status": word, "region": place, "location": place, "factory_port": 65535}
        fat = {"factory_name": name, "factory_hostname": host, "capabilities": {"a": wide * 4}}
        roster.register(Registration.model_validate_json(json.dumps(told | fat)), Now(1.8e9, 0.0))
        load = dict.fromkeys(CurrentLoad.model_fields, 1234.123456789012)
        beat = {"current_load": load, "active_experiments": [wide] * 4, "last_training_completion": word}
        roster.beat(Heartbeat.model_validate_json(json.dumps({"factory_name": name} | beat)), Now(1.8e9, 0.0))
        assert len(roster.shown(name)) > 10_000
        roster.take_unwritten()
    each = (_traced() - before) / count
    tracemalloc.stop()
    assert each > 15_000
    assert each * MOST_FACTORIES < 640 * 1024 * 1024


def _traced() -> int:
    tracemalloc.start()
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def test_a_refused_one_costs_no_memory() -> None:
    """A scan of names from many addresses leaves nothing."""
    account = Newcomers()
    for number in range(1000):
        account.wait(f"10.1.{number // 256}.{number % 256}", 0.0)
    assert {} == account._filled


def test_a_clock_that_stands_still_is_no_way_round() -> None:
    """The tick decides, not the wall."""
    account, now = Newcomers(1), Now(0.0, 7.0)
    account.note("a", now.tick)
    assert account.wait("a", now.tick) > 0
