"""Whatever a stranger sends and whatever a database holds: an answer below 500, and everybody else is served on."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from central.dashboard.app import create_app
from central.dashboard.liveness import Now, Thresholds
from central.dashboard.roster import Roster
from central.dashboard.store import STEPS, Batch, Change, Factory, FactoryStore, MeanLoad
from central.dashboard.wire import (
    MAX_CAPABILITIES,
    MAX_EXPERIMENTS,
    CurrentLoad,
    FactoryList,
    FactoryView,
    Heartbeat,
    History,
    Registration,
)

WALL = 1_800_000_000.0
ALPHA = {"factory_name": "alpha", "factory_hostname": "plant", "factory_port": 8080}
PATHS = ("/", "/factories", "/factories/alpha", "/factories/alpha/history", "/healthz", "/docs", "/openapi.json")


def nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + "1" + closing * depth


NUMBERS = [
    *("-1", "0", "-0.0", "0.5", "1e20", "-1e20", "1e39", "1e300", "1e400", "-1e400", "NaN", "Infinity", "-Infinity"),
    *("1" + "0" * 20, "-1" + "0" * 20, "1" + "0" * 400, "9" * 5000, str(2**53 + 1), str(2**63), str(2**64)),
]
TEXTS = [
    *('""', '" "', '"x"', '"-1"', '"nan"', '"1e400"', '"a/b"', '".."', f'"{"9" * 50}"', f'"{"x" * 300}"'),
    *(f'"{"x" * 9000}"', r'"\ud800"', r'"\u0000"', r'"a\nb"', r'"\u202e"', r'"\ud83d\ude00"', f'"{"9" * 5000}"'),
    *('"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59-23:59"', r'"2025-01-31\u000012:00:00"', '"\U0001f600"'),
]
LISTS = [
    *("[]", "[[]]", "[null]", "[1]", '[""]', r'["\ud800"]', r'["\u0000"]', f'["{"x" * 257}"]'),
    *(f"[{','.join([item] * count)}]" for item, count in (("1", 20000), ("[]", 2000), (f'"{"e" * 50}"', 1000))),
    *(nested("[", "]", 20), nested("[", "]", 2000)),
]
OBJECTS = [
    *("{}", '{"":null}', '{"a":1e300}', '{"a":NaN}', f'{{"a":1{"0" * 400}}}', r'{"\ud800":1}', r'{"a":"\ud800"}'),
    *(f'{{"a":"{"x" * MAX_CAPABILITIES}"}}', f'{{"a":[{",".join(["{}"] * 1300)}]}}', '{"a":1,"a":2}'),
    *('{"cpu_usage":1e300}', '{"cpu_usage":[1]}', '{"__proto__":{"a":1}}'),
    *(nested('{"a":', "}", 20), nested('{"a":', "}", 2000)),
]
STRANGE = ["null", "true", "false", "", "]", *NUMBERS, *TEXTS, *LISTS, *OBJECTS]
FIELDS = [
    *(("/register_factory", field) for field in Registration.model_fields),
    *(("/heartbeat", field) for field in Heartbeat.model_fields),
    *(("/heartbeat", f"current_load.{field}") for field in CurrentLoad.model_fields),
]


def clock() -> Now:
    return Now(WALL, 1000.0)


def a_client(database: Path) -> TestClient:
    return TestClient(create_app(database, clock=clock, new_per_hour=1_000_000), raise_server_exceptions=False)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "d.db"


@pytest.fixture
def client(database: Path) -> Iterator[TestClient]:
    with a_client(database) as made:
        made.post("/register_factory", json=ALPHA)
        yield made


def body(path: str, field: str, value: str) -> str:
    """An honest body with one field as ``value`` is written."""
    told = dict(ALPHA) if path == "/register_factory" else {"factory_name": "alpha"}
    *outer, inner = field.split(".")
    told.pop(inner, None)
    rest = json.dumps(told)[1:-1]
    strange = f'"{inner}":{value}'
    if outer:
        strange = f'"{outer[0]}":{{{strange}}}'
    return f"{{{rest}{',' if rest else ''}{strange}}}"


def send(client: TestClient, path: str, content: str | bytes) -> int:
    return client.post(path, content=content, headers={"content-type": "application/json"}).status_code


def post_all(client: TestClient, path: str, contents: Iterable[str]) -> list[tuple[int, int]]:
    """What each is answered, and what alpha's own page answers after it. In the server's thread: ten times as fast."""

    async def post() -> list[tuple[int, int]]:
        transport = httpx.ASGITransport(client.app, raise_app_exceptions=False)
        headers = {"content-type": "application/json"}
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver", headers=headers) as asking:
            return [
                ((await asking.post(path, content=one)).status_code, (await asking.get("/factories/alpha")).status_code)
                for one in contents
            ]

    assert client.portal is not None
    return client.portal.call(post)


async def _snapshot(frames: Any) -> Any:
    told = b""
    async with aclosing(frames):
        async for piece in frames:
            told += piece
            if b"event: snapshot" in told and told.endswith(b"\n\n"):
                break
    return json.loads(told.rpartition(b"data: ")[2])


def looks(client: TestClient, *names: str) -> dict[str, int]:
    """Whatever cannot be looked at. What is answered has the shape that is promised."""
    listed = client.get("/factories")
    FactoryList.model_validate_json(listed.content)
    for name in ("alpha", *names):
        FactoryView.model_validate_json(client.get(f"/factories/{name}").content)
        History.model_validate_json(client.get(f"/factories/{name}/history").content)
    assert client.portal is not None
    snapshot = client.portal.call(_snapshot, client.app.state.feed.listen())  # type: ignore[attr-defined]  # a FastAPI
    assert snapshot == listed.json()
    codes = {path: client.get(path).status_code for path in PATHS}
    return {path: code for path, code in codes.items() if code != 200}


@pytest.mark.parametrize(("path", "field"), FIELDS)
def test_no_value_of_any_field_breaks_anything(client: TestClient, database: Path, path: str, field: str) -> None:
    """Refused or taken, never a 5xx; all that can be looked at answers 200 after each, and after a restart."""
    codes = post_all(client, path, [body(path, field, value) for value in STRANGE])
    told = zip(STRANGE, codes, strict=True)
    assert [] == [(value[:40], *both) for value, both in told if both[0] >= 500 or both[1] != 200]
    assert {} == looks(client)
    client.__exit__(None, None, None)
    with a_client(database) as again:
        assert {} == looks(again)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.text("\ud800\x00\u202ea"),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.sampled_from(FIELDS), anything)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nor_does_what_nobody_thought_of(client: TestClient, field: tuple[str, str], value: Any) -> None:
    """Drawn at random."""
    path, name = field
    assert send(client, path, body(path, name, json.dumps(value))) < 500
    assert 200 == client.get("/factories").status_code


@pytest.mark.parametrize("path", ["/register_factory", "/heartbeat"])
def test_a_strange_request_is_answered(client: TestClient, path: str) -> None:
    """Bodies that are no object, and names, ids and lengths that are none."""
    codes = [send(client, path, value.encode("utf-8", "surrogatepass")) for value in [*STRANGE, "\x00", "\ufeff{}"]]
    for name in ("%00", "%ff", "%ed%a0%80", "x" * 5000, "alpha%0a"):
        codes += [client.get(f"/factories/{name}{rest}").status_code for rest in ("", "/history")]
    assert [] == [code for code in codes if not 400 <= code < 500]
    feed = client.app.state.feed  # type: ignore[attr-defined]  # it is a FastAPI
    assert client.portal is not None
    for last in (f"{feed._life}-{'9' * 5000}", "-", "x" * 5000, f"{feed._life}--1"):
        assert client.portal.call(_snapshot, feed.listen(last))
    assert {} == looks(client)


# --- the bounds ---


@pytest.mark.parametrize(
    ("path", "more", "why"),
    [
        ("/heartbeat", {"current_load": {"cpu_usage": 1e300}}, "less than or equal to 1000000"),
        ("/heartbeat", {"current_load": {"memory_usage": -1}}, "greater than or equal to 0"),
        ("/heartbeat", {"current_load": {"network_latency": 1e20}}, "less than or equal to 1000000000"),
        ("/heartbeat", {"timestamp": "2025-01-31\x0012:00:00"}, "control characters"),
        ("/register_factory", {"capabilities": {"a": "x" * 4096}}, "expected at most 4096 bytes as JSON, not 4104"),
        ("/register_factory", {"capabilities": {"a": 10**20}}, "a number is larger than 9007199254740992"),
    ],
)
def test_what_is_beyond_a_bound_is_refused_with_the_bound(
    client: TestClient, path: str, more: dict[str, Any], why: str
) -> None:
    """422, in words that a datasite's log can show."""
    answer = client.post(path, json=ALPHA | more)
    assert 422 == answer.status_code
    assert why in answer.text


def test_a_refusal_is_short_however_much_is_wrong(client: TestClient) -> None:
    """A list of hundreds of wrong names is not answered with hundreds of faults."""
    answer = client.post("/heartbeat", json={"factory_name": "alpha", "active_experiments": [1] * 900})
    assert 422 == answer.status_code
    assert len(answer.content) < 8192


def test_what_an_honest_datasite_sends_at_most_is_taken(client: TestClient) -> None:
    """32 experiments with names of 100 letters, whatever letters; capabilities of 4 KB; a busy host of 256 cores."""
    load = {"cpu_usage": 25_600.0, "memory_usage": 100.0, "disk_usage": 100.0, "network_latency": 8000.0}
    names = ["f" * 99 + "…"] * 32
    capabilities = {"supported_models": ["x" * (MAX_CAPABILITIES - len('{"supported_models":[""]}'))]}
    beat = {"factory_name": "alpha", "active_experiments": names, "current_load": load}
    codes = [client.post("/register_factory", json=ALPHA | {"capabilities": capabilities}).status_code]
    codes += [client.post("/heartbeat", json=beat).status_code]
    assert [200, 200] == codes
    one = client.get("/factories/alpha").json()
    assert (capabilities, names, load) == (one["capabilities"], one["active_experiments"], one["load"])


def test_a_list_too_long_to_be_kept_is_kept_as_its_number(client: TestClient) -> None:
    """The beat counts, and the page still tells how many there are."""
    names = ["x" * 60] * (MAX_EXPERIMENTS // 50)
    assert 200 == client.post("/heartbeat", json={"factory_name": "alpha", "active_experiments": names}).status_code
    assert len(names) == client.get("/factories/alpha").json()["active_experiments"]


def test_a_strange_name_of_an_experiment_costs_no_beat(client: TestClient) -> None:
    """A user of the datasite chose it; what cannot be shown is replaced."""
    beat = r'{"factory_name":"alpha","active_experiments":["a\ud800\u0000\u202e\nb"]}'
    assert 200 == send(client, "/heartbeat", beat)
    assert ["a\ufffd\ufffd\ufffd\ufffdb"] == client.get("/factories/alpha").json()["active_experiments"]


# --- what a database holds ---

COLUMNS = [
    *("hostname", "port", "device", "reported_status", "capabilities", "registered_at", "last_seen", "last_heartbeat"),
    *("timestamp", "current_load", "active_experiments", "last_training_completion", "region", "location", "status"),
    "status_since",
]
DAMAGE: list[Any] = [
    *(1e300, -1e300, float("inf"), 2**63 - 1, -(2**63), -1, 1e39, "", "x" * 100_000, "a\x00b", "\n", "{", "NaN"),
    *('{"a":NaN}', '{"a":1e400}', "1e400", "9" * 5000, "[" * 100_000, '{"a":"\\ud800"}', "[1]", '["a", null]'),
    *('{"cpu_usage":1e300}', '{"cpu_usage":"x","disk_usage":5}', '{"cpu_usage":NaN}', '{"cpu_usage":1e400}'),
    *(b"\xff\xfe", b"", b"[]", "CAST(X'ff41' AS TEXT)", f'{{"a":"{"x" * 5000}"}}', f'["{"x" * 5000}"]'),
]


def spoil(database: Path, *damage: tuple[str, Any]) -> None:
    """As another program would, which knows of no bound: each is a statement, and the value for its question mark. Text
    that begins with CAST is SQL, for what is no UTF-8."""
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement, value in damage:
            words = statement.replace("?", value) if str(value).startswith("CAST") else statement
            connection.execute(words, (value,) if "?" in words else ())


def seeded(database: Path, *more: str) -> None:
    """Alpha, beta and more, each with a status change and a minute of load."""
    store = FactoryStore(database)
    names = ("alpha", "beta", *more)
    factories = [Factory(name, "plant", 8080, "cpu", "", b"{}", WALL, WALL, WALL) for name in names]
    changes = [Change(name, WALL - 5, "running") for name in names]
    store.write(Batch(factories, changes, [MeanLoad(name, int(WALL), 1, 5.0, 5.0, 5.0, 5.0) for name in names]))
    store.close()


@pytest.fixture
def spoiled(database: Path, request: pytest.FixtureRequest) -> list[str]:
    """The names of factories, each with another damage in the table and column that are asked for."""
    names = [f"spoiled_{number:02}" for number in range(len(DAMAGE))]
    seeded(database, *names)
    table, column = request.param
    statements = [f"UPDATE {table} SET {column} = ? WHERE name = '{name}'" for name in names]
    spoil(database, *zip(statements, DAMAGE, strict=True))
    return names


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("spoiled", [("factories", column) for column in COLUMNS], indirect=True, ids=COLUMNS)
def test_a_spoiled_column_fails_nothing(spoiled: list[str], database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It starts, every factory is shown, those that are well as they were; each complaint comes once; beats go on."""
    with a_client(database) as client:
        assert {} == looks(client)
        shown = {one["factory_name"]: one for one in client.get("/factories").json()["factories"]}
        assert {"alpha", "beta", *spoiled} == set(shown)
        assert ("plant", 8080, "running") == tuple(shown["beta"][key] for key in ("hostname", "port", "status"))
        told = complaints(caplog)
        assert len(told) == len(set(told))
        assert all("factory 'spoiled_" in line and "it is shown as unknown" in line for line in told), told
        beats = [json.dumps({"factory_name": name}) for name in spoiled]
        assert {(200, 200)} == set(post_all(client, "/heartbeat", beats))
        assert 200 == client.post("/register_factory", json=ALPHA).status_code
        assert {} == looks(client)


def test_the_log_names_the_factory_and_the_field(database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One figure of a load: the others are shown."""
    seeded(database)
    load = '{"cpu_usage":1e300,"disk_usage":5}'
    spoil(database, ("UPDATE factories SET current_load = ? WHERE name = 'alpha'", load))
    with a_client(database) as client:
        shown = {"cpu_usage": None, "memory_usage": None, "disk_usage": 5.0, "network_latency": None}
        assert shown == client.get("/factories/alpha").json()["load"]
    wanted = "factory 'alpha': the database has an invalid current_load.cpu_usage; it is shown as unknown"
    assert [wanted] == complaints(caplog)


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\nb", b"\xff", "CAST(X'ff41' AS TEXT)"])
def test_a_row_without_a_name_that_can_be_one_is_left_out(
    database: Path, name: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And told in the log; the others are there."""
    seeded(database)
    spoil(database, ("UPDATE factories SET name = ? WHERE name = 'beta'", name))
    with a_client(database) as client:
        assert {} == looks(client)
        assert ["alpha"] == [one["factory_name"] for one in client.get("/factories").json()["factories"]]
    assert "an invalid name; the row is left out" in caplog.text


HISTORY = [("loads", column) for column in ("at", "beats", "cpu", "latency")]
HISTORY += [("changes", column) for column in ("at", "status")]


@pytest.mark.parametrize("spoiled", HISTORY, indirect=True, ids=map(".".join, HISTORY))
def test_a_spoiled_history_fails_nothing(spoiled: list[str], database: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rows beside it are told; the log says so once, however often it is asked; summing up works."""
    with a_client(database) as client:
        for _ in range(2):
            assert {} == looks(client, *spoiled)
        history = client.get("/factories/beta/history").json()
        assert (1, 1) == (len(history["changes"]), len(history["load"][0]["points"]))
        beats = [json.dumps({"factory_name": name}) for name in spoiled]
        assert {(200, 200)} == set(post_all(client, "/heartbeat", beats))
        assert 200 == client.post("/register_factory", json=ALPHA).status_code
    told = complaints(caplog)
    assert len(told) == len(set(told))
    assert all("factory 'spoiled_" in line for line in told), told
    with closing(FactoryStore(database)) as store:
        store.tidy(WALL + 90_000)


def test_a_spoiled_minute_does_not_spoil_the_hours(database: Path) -> None:
    """What is beyond its bound does not go into the means."""
    store = FactoryStore(database)
    store.write(Batch(loads=[MeanLoad("alpha", int(WALL), 1, 1e300), MeanLoad("alpha", int(WALL) + 60, 1, 7.0)]))
    store.tidy(WALL + 1200)
    assert [7.0] == [load.cpu for load in store.loads("alpha", STEPS[1], WALL + 1200)]
    store.close()


# --- health ---


def test_health_is_that_of_the_list(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the list cannot be made, /healthz says so in a sentence; so does the log."""

    def broken(_roster: Roster, _name: str, _now: Now) -> bytes:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Roster, "one", broken)
    answer = client.get("/healthz")
    assert 503 == answer.status_code
    assert "the dashboard cannot list the factories; see its log" == answer.json()["detail"]


def test_one_factory_that_cannot_be_shown_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Should a value ever get past all checks: its factory is shown by name and status."""
    spoiled = Factory("alpha", "h", 1, "", "", b"{}", 1e300, WALL)
    well = Factory("beta", "h", 1, "", "", b"{}", WALL, WALL)
    roster = Roster(Thresholds(), clock(), [spoiled, well])
    told = FactoryList.model_validate_json(roster.all(clock())).factories
    assert [("alpha", None, "running"), ("beta", "h", "running")] == [
        (one.factory_name, one.hostname, one.status) for one in told
    ]
    assert "factory 'alpha': only name and status can be shown" in caplog.text
