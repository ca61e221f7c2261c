"""The dashboard's SQLite file: what is written is there again, what is old is summed up and removed."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from central.dashboard import store as store_module
from central.dashboard.store import STEPS, Batch, Change, Factory, FactoryStore, MeanLoad, StoreUnusable

NOW = 1_800_000_000.0
DAY = 86400
LOAD = b'{"cpu_usage":1.0,"memory_usage":null,"disk_usage":null,"network_latency":null}'


def a_factory(name: str = "alpha", seen: float = NOW) -> Factory:
    return Factory(name, "plant", 8080, "cpu", "running", b'{"a":[1]}', NOW - 9, seen, seen, None, LOAD, b'["fit"]')


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "made" / "dashboard.db"


def test_what_is_written_is_there_for_the_next_process(file: Path) -> None:
    """A batch, written twice over: the later one holds."""
    first = FactoryStore(file)
    first.write(Batch([a_factory()], [Change("alpha", NOW, "running")], [MeanLoad("alpha", int(NOW), 1, 5.0)]))
    first.write(Batch([a_factory(seen=NOW + 5)], [], [MeanLoad("alpha", int(NOW), 2, 7.0)]))
    first.close()
    second = FactoryStore(file)
    assert [a_factory(seen=NOW + 5)] == second.factories()
    assert [Change("alpha", NOW, "running")] == second.changes("alpha")
    assert [MeanLoad("alpha", int(NOW), 2, 7.0)] == list(second.minutes(NOW - 60))
    second.close()


def test_one_dashboard_at_a_time_has_a_file(file: Path) -> None:
    """A second one is refused with the reason, and may have it afterwards."""
    first = FactoryStore(file)
    with pytest.raises(StoreUnusable, match="another dashboard uses the database"):
        FactoryStore(file)
    first.close()
    FactoryStore(file).close()


@pytest.mark.parametrize("content", [b"no database" * 100, b""])
def test_a_file_that_is_no_database_is_refused_in_words(file: Path, content: bytes) -> None:
    """An empty one is taken; another is left as it is."""
    file.parent.mkdir()
    file.write_bytes(content)
    if not content:
        FactoryStore(file).close()
        return
    with pytest.raises(StoreUnusable, match="cannot use the dashboard's database"):
        FactoryStore(file)
    assert content == file.read_bytes()


def test_a_newer_file_is_refused(file: Path) -> None:
    """An older dashboard would not know what it does to it."""
    FactoryStore(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version=99")
    with pytest.raises(StoreUnusable, match="newer release"):
        FactoryStore(file)


def test_a_file_of_the_first_schema_is_brought_up(file: Path) -> None:
    """Its factories stay, without a region, running since they were last seen."""
    file.parent.mkdir()
    with sqlite3.connect(file) as connection:
        connection.execute(
            "CREATE TABLE factories (name VARCHAR PRIMARY KEY, hostname VARCHAR NOT NULL, port INTEGER NOT NULL, "
            "device VARCHAR NOT NULL, reported_status VARCHAR NOT NULL, capabilities JSON NOT NULL, "
            "registered_at FLOAT NOT NULL, last_seen FLOAT NOT NULL, last_heartbeat FLOAT, timestamp VARCHAR, "
            "current_load JSON, active_experiments JSON, last_training_completion VARCHAR)"
        )
        connection.execute(
            f"INSERT INTO factories VALUES ('old', 'h', 1, 'cpu', '', '{{}}', 5.0, {NOW}, NULL, NULL, NULL, NULL, NULL)"
        )
        connection.execute("PRAGMA user_version=1")
    store = FactoryStore(file)
    assert [("old", "", "", "running", NOW)] == [
        (one.name, one.region, one.location, one.status, one.status_since) for one in store.factories()
    ]
    store.write(Batch([a_factory("new")]))
    store.close()


def test_minutes_become_ten_minutes_become_six_hours(file: Path) -> None:
    """Two days of minutes: of each step what it keeps, averaged, and nothing else; tidying twice changes nothing."""
    store = FactoryStore(file)
    begin = int(NOW) - 2 * DAY
    for hour in range(48):
        minutes = range(begin + hour * 3600, begin + (hour + 1) * 3600, 60)
        store.write(Batch(loads=[MeanLoad("alpha", minute, 2, float(minute // 60 % 10)) for minute in minutes]))
        store.tidy(begin + (hour + 1) * 3600)
    store.tidy(NOW)
    minute, ten, six = ([*store.loads("alpha", step, NOW)] for step in STEPS)
    assert (60, 144) == (len(minute), len(ten))
    assert {(20, 4.5)} == {(load.beats, load.cpu) for load in ten}
    assert {4.5} == {load.cpu for load in six}
    assert 7 <= len(six) <= 8
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT COUNT(*) FROM loads").fetchone()[0]
    assert rows < 60 + 144 + 8 + 10 + 36
    store.close()


def test_changes_are_bounded_by_number_and_by_age(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one stays, however old it is: it says since when."""
    monkeypatch.setattr(store_module, "CHANGES_KEPT", 3)
    store = FactoryStore(file)
    flapping = [Change("flapping", NOW - number, "late") for number in range(9)]
    quiet = [Change("quiet", NOW - 90 * DAY, "late"), Change("quiet", NOW - 80 * DAY, "offline")]
    store.write(Batch(changes=[*flapping, *quiet]))
    store.tidy(NOW)
    assert [NOW, NOW - 1, NOW - 2] == [change.at for change in store.changes("flapping")]
    assert ["offline"] == [change.status for change in store.changes("quiet")]
    store.close()
