"""The dashboard's HTTP, through its whole stack but the socket: what is taken, what is refused and with which words."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from central.dashboard import roster as roster_module
from central.dashboard.app import create_app
from central.dashboard.liveness import Now, Thresholds
from central.dashboard.store import Batch, FactoryStore

ALPHA = {"factory_name": "alpha", "factory_hostname": "plant", "factory_port": 8080}


class Clock:
    """Turned by hand."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> Now:
        return Now(1_800_000_000.0 + self.passed, 1000.0 + self.passed)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(tmp_path: Path, clock: Clock) -> Iterator[TestClient]:
    with TestClient(create_app(tmp_path / "d.db", clock=clock), raise_server_exceptions=False) as made:
        yield made


def test_a_factory_registers_beats_and_is_listed(client: TestClient) -> None:
    """With everything that an operator looks for."""
    told = {"device": "cuda:0", "capabilities": {"security_level": "high"}, "region": "Michigan", "location": "Hall 3"}
    registered = client.post("/register_factory", json=ALPHA | told)
    load = {"cpu_usage": 42.0, "memory_usage": 50.0, "disk_usage": 20.0, "network_latency": 1.5}
    beaten = client.post("/heartbeat", json={"factory_name": "alpha", "current_load": load, "unheard_of": 1})
    assert [(200, "registered"), (200, "ok")] == [
        (one.status_code, one.json()["status"]) for one in (registered, beaten)
    ]
    listed = client.get("/factories").json()
    assert (45.0, 90.0) == (listed["late_after"], listed["offline_after"])
    (one,) = listed["factories"]
    wanted = {"factory_name": "alpha", "status": "running", "hostname": "plant", "port": 8080, "load": load} | told
    assert wanted == {key: one[key] for key in wanted}
    assert "2027-01-15T08:00:00.000+00:00" == one["last_heartbeat"]
    assert one == client.get("/factories/alpha").json()


def test_a_registration_is_on_the_disk_when_it_is_answered(client: TestClient, tmp_path: Path) -> None:
    """Read by another connection, at once."""
    client.post("/register_factory", json=ALPHA)
    with sqlite3.connect(tmp_path / "d.db") as connection:
        assert [("alpha",)] == connection.execute("SELECT name FROM factories").fetchall()


def test_an_unknown_factory_is_told_to_register(client: TestClient) -> None:
    """In words that its log can show."""
    answer = client.post("/heartbeat", json={"factory_name": "beta"})
    assert 404 == answer.status_code
    assert "register it first with POST /register_factory" in answer.json()["detail"]
    assert [404, 404] == [client.get(path).status_code for path in ("/factories/beta", "/factories/beta/history")]


BAD = [
    ({}, "factory_name"),
    (ALPHA | {"factory_name": ""}, "at least 1 character"),
    (ALPHA | {"factory_name": "a" * 129}, "at most 128"),
    (ALPHA | {"factory_name": "a/b"}, "GET /factories/{name} contains the name"),
    (ALPHA | {"factory_name": ".."}, "GET /factories/{name} contains the name"),
    (ALPHA | {"factory_name": "a\nb"}, "control characters"),
    (ALPHA | {"factory_name": 7}, "valid string"),
    (ALPHA | {"factory_port": 0}, "greater than or equal to 1"),
    (ALPHA | {"factory_port": "many"}, "valid integer"),
    (ALPHA | {"capabilities": [1]}, "valid dictionary"),
    (ALPHA | {"region": "r" * 129}, "at most 128"),
    (ALPHA | {"location": "\u202ehall"}, "control characters"),
]


@pytest.mark.parametrize(("body", "why"), BAD)
def test_a_bad_registration_is_refused_with_the_reason(client: TestClient, body: Any, why: str) -> None:
    """422, the reason, and nothing kept."""
    answer = client.post("/register_factory", json=body)
    assert 422 == answer.status_code
    assert why in answer.text
    assert [] == client.get("/factories").json()["factories"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"timestamp": "yesterday"}, "ISO 8601"),
        ({"current_load": {"cpu_usage": "much"}}, "valid number"),
        ({"active_experiments": -1}, "greater than or equal to 0"),
        ({"current_load": 5}, "current_load"),
    ],
)
def test_a_bad_beat_is_refused_with_the_reason(client: TestClient, body: dict[str, Any], why: str) -> None:
    """And the factory stays as it was."""
    client.post("/register_factory", json=ALPHA)
    before = client.get("/factories/alpha").json()
    answer = client.post("/heartbeat", json={"factory_name": "alpha"} | body)
    assert 422 == answer.status_code
    assert why in answer.text
    assert before == client.get("/factories/alpha").json()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", 422),
        (b"\xff\xfe", 422),
        (b"[" * 30_000, 400),
        (b'{"factory_name": NaN}', 422),
        (b'"' * 70_000, 413),
        (b"", 422),
    ],
)
def test_what_is_no_json_is_refused(client: TestClient, content: bytes, code: int) -> None:
    """Broken, deep, not UTF-8, too large, none: 4xx with a reason, and the dashboard goes on."""
    answer = client.post("/heartbeat", content=content, headers={"content-type": "application/json"})
    assert code == answer.status_code
    assert answer.json()["detail"]
    assert {"status": "ok"} == client.get("/healthz").json()


def test_thresholds_can_be_set(tmp_path: Path, clock: Clock) -> None:
    """Late after 5 s and offline after 6, where that is wanted."""
    with TestClient(create_app(tmp_path / "d.db", clock=clock, thresholds=Thresholds(5, 6))) as client:
        client.post("/register_factory", json=ALPHA)
        seen = []
        for clock.passed in (4.0, 5.0, 6.0):
            seen.append(client.get("/factories/alpha").json()["status"])
        assert ["running", "late", "offline"] == seen


def test_history_tells_changes_and_load(client: TestClient, clock: Clock) -> None:
    """Changes newest first; the load in three steps, the finest with a point for the minute."""
    client.post("/register_factory", json=ALPHA)
    clock.passed = 100.0
    client.get("/factories")
    client.post("/heartbeat", json={"factory_name": "alpha", "current_load": {"cpu_usage": 10.0}})
    client.post("/register_factory", json=ALPHA)  # answered when all is on the disk
    history = client.get("/factories/alpha/history").json()
    assert ["running", "offline", "running"] == [change["status"] for change in history["changes"]]
    assert [(60, 3600), (600, 86400), (21600, 2592000)] == [(one["step_s"], one["kept_s"]) for one in history["load"]]
    assert [(1, 10.0, None)] == [
        (point["beats"], point["cpu_usage"], point["disk_usage"]) for point in history["load"][0]["points"]
    ]


def test_the_interface_is_described(client: TestClient) -> None:
    """OpenAPI names every path, and the way there loads nothing from elsewhere."""
    paths = client.get("/openapi.json").json()["paths"]
    wanted = {"/register_factory", "/heartbeat", "/factories", "/factories/{name}", "/factories/{name}/history"}
    assert wanted | {"/events", "/healthz"} == set(paths)
    docs = client.get("/docs")
    assert "text/plain; charset=utf-8" == docs.headers["content-type"]
    assert all(path in docs.text for path in [*paths, "/openapi.json"])


def test_the_page_allows_nothing_from_elsewhere(client: TestClient) -> None:
    """A strict policy, no inline script or style, no address of another host."""
    for path in ("/", "/page.css", "/page.js"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "").lower()
    page = client.get("/").text
    assert ("<style", "style=", " onclick") == tuple(
        word for word in ("<style", "style=", " onclick") if word not in page
    )


def test_a_disk_that_fails_is_told_and_loses_nothing(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 for a registration and for health, 200 for a beat; afterwards all is written."""
    client.post("/register_factory", json=ALPHA)
    well = FactoryStore.write

    def failing(_store: FactoryStore, _batch: Batch) -> None:
        raise OperationalError("INSERT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(FactoryStore, "write", failing)
    refused = client.post("/register_factory", json=ALPHA | {"factory_name": "beta"})
    assert (503, 503, 200) == (
        refused.status_code,
        client.get("/healthz").status_code,
        client.post("/heartbeat", json={"factory_name": "alpha", "device": "cuda:7"}).status_code,
    )
    assert "cannot use its database at the moment" in refused.json()["detail"]
    monkeypatch.setattr(FactoryStore, "write", well)
    client.post("/register_factory", json=ALPHA | {"factory_name": "gamma"})
    assert 200 == client.get("/healthz").status_code
    with sqlite3.connect(tmp_path / "d.db") as connection:
        rows = connection.execute("SELECT name, device FROM factories ORDER BY name").fetchall()
    assert [("alpha", "cuda:7"), ("beta", ""), ("gamma", "")] == rows


def test_a_value_that_cannot_be_stored_does_not_end_the_keeper(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite's driver says so by other exceptions: the registration is answered, health tells, and it goes on."""
    well = FactoryStore.write

    def failing(_store: FactoryStore, _batch: Batch) -> None:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    monkeypatch.setattr(FactoryStore, "write", failing)
    assert 500 == client.post("/register_factory", json=ALPHA).status_code
    assert 503 == client.get("/healthz").status_code
    monkeypatch.setattr(FactoryStore, "write", well)
    assert 200 == client.post("/register_factory", json=ALPHA).status_code
    assert 200 == client.get("/healthz").status_code


def test_a_long_list_comes_whole(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many pieces it is sent in."""
    names = [f"line_{number:02}" for number in range(30)]
    for name in names:
        client.post("/register_factory", json=ALPHA | {"factory_name": name})
    for size in (1, 1000, 10**6):
        monkeypatch.setattr(roster_module, "_PIECE", size)
        assert names == [one["factory_name"] for one in client.get("/factories").json()["factories"]]
