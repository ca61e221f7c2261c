"""Who may call what, who has shown a key, what is told of refusals, and how many connections there may be."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from datasite_worker.bounds import ANONYMOUS, MOST, OWN, TRUSTED, Bounds, Connections, NoRoom, Room, TooLarge
from datasite_worker.pysyft.gate import GUEST_METHODS, QUEUED, job_refusal, refusal
from datasite_worker.pysyft.sessions import LIFETIME, Sessions
from datasite_worker.refusals import MOST_LINES, PERIOD, Refusals
from fleet_common.contract import Access, StatusDocument, parse_status

EVERYBODY = {"GUEST", "DATA_SCIENTIST", "DATA_OWNER", "ADMIN"}
ROLES = {
    "dataset.get_all": EVERYBODY,
    "code.call": EVERYBODY,
    "project.get_all": EVERYBODY,
    "user.create": {"DATA_OWNER", "ADMIN"},
    "network.ping": EVERYBODY,
    "migration._get_object": EVERYBODY,
}
CLOSED, OPEN = Access(), Access(guests=True)

CASES = [
    ("dataset.get_all", "DATA_SCIENTIST", CLOSED, True, ""),
    ("dataset.get_all", "DATA_SCIENTIST", CLOSED, False, "cannot be queued"),
    ("code.call", "DATA_SCIENTIST", CLOSED, False, ""),
    ("user.create", "DATA_SCIENTIST", CLOSED, True, "you have no access to"),
    ("user.create", "ADMIN", CLOSED, True, ""),
    ("user.create", "ADMIN", CLOSED, False, "cannot be queued"),
    ("network.ping", "ADMIN", CLOSED, True, "does not work with other servers"),
    ("network.anything", "ADMIN", OPEN, True, "does not work with other servers"),
    ("nothing.known", "ADMIN", CLOSED, True, "not in registered services"),
    ("migration._get_object", "DATA_OWNER", CLOSED, True, "you have no access to"),
    ("migration._get_object", "ADMIN", CLOSED, True, ""),
    ("metadata", "DATA_SCIENTIST", CLOSED, True, ""),
    ("queue", "GUEST", OPEN, True, "Without an account"),
    ("dataset.get_all", "GUEST", CLOSED, True, "answers only users"),
    ("code.call", "GUEST", CLOSED, False, "answers only users"),
    ("dataset.get_all", "GUEST", OPEN, True, ""),
    ("project.get_all", "GUEST", OPEN, True, "Without an account"),
    ("code.call", "GUEST", OPEN, False, "Without an account"),
    ("dataset.get_all", "GUEST", OPEN, False, "cannot be queued"),
]


@pytest.mark.parametrize(("path", "role", "access", "blocking", "expected"), CASES)
def test_a_call_is_answered_by_the_table(path: str, role: str, access: Access, blocking: bool, expected: str) -> None:
    """By PySyft's roles, less what a datasite has no use for, and less what a stranger needs not."""
    told = refusal(path, role, access, ROLES, blocking=blocking)
    assert (expected == "", True) == (told == "", expected in told)


def test_what_may_be_queued_is_what_may_run() -> None:
    """Approved code, and the owner's endpoints."""
    roles = {"code.call": EVERYBODY, "api.call": EVERYBODY}
    assert {"code.call"} == QUEUED
    assert "" == job_refusal("ActionQueueItem", "execute", "DATA_SCIENTIST", roles)
    assert "cannot run as a job on this datasite" in job_refusal("QueueItem", "create", "ADMIN", roles)
    assert "its caller now has the role guest" in job_refusal("ActionQueueItem", "execute", "GUEST", roles)
    assert 6 == len(GUEST_METHODS)


# --- sessions ---


def test_a_cookie_proves_the_key_it_was_made_for() -> None:
    """For its time, and at the datasite that made it."""
    mine, other = Sessions(b"one"), Sessions(b"two")
    cookie = mine.cookie("key", 100.0)
    assert mine.is_proven("key", "a", cookie, 101.0)
    assert Sessions(b"one").is_proven("key", "b", cookie, 101.0)
    for refused in (
        mine.is_proven("other", "a", cookie, 101.0),
        mine.is_proven("key", "a", cookie, 100.0 + LIFETIME),
        other.is_proven("key", "a", cookie, 101.0),
        mine.is_proven("key", "a", "", 101.0),
        mine.is_proven("key", "a", "9" * 5000 + ".x", 101.0),
        mine.is_proven("key", "a", f"{10**12}.{cookie.partition('.')[2]}", 101.0),
        mine.is_proven("key", "a", "²." + cookie.partition(".")[2], 101.0),
    ):
        assert refused is False


def test_a_signed_call_proves_the_key_at_its_address() -> None:
    """Not elsewhere; and what is remembered has an end."""
    sessions = Sessions(b"one")
    sessions.saw("key", "here")
    assert (True, False) == (sessions.is_proven("key", "here", "", 1.0), sessions.is_proven("key", "there", "", 1.0))
    for number in range(10_000):
        sessions.saw(str(number), "here")
    assert not sessions.is_proven("key", "here", "", 1.0)


# --- refusals ---


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(logging.getLogger("datasite_worker"), "propagate", True)
    caplog.set_level(logging.WARNING, "datasite_worker")
    return caplog


def test_refusals_are_counted_and_told_once_a_minute(log: pytest.LogCaptureFixture) -> None:
    """The first at once; a flood of them neither fills the log nor wakes the supervisor each time."""
    refusals = Refusals()
    assert 0 == refusals.told(0.0).failed_logins
    refusals.login("a@b.example", "10.0.0.1", 1.0)
    assert (1, "for a@b.example from 10.0.0.1") == (
        refusals.told(1.0).failed_logins,
        refusals.told(1.0).last_failed_login,
    )
    for _ in range(999):
        refusals.login("x@b.example", "10.0.0.2", 2.0)
    assert 1 == refusals.told(3.0).failed_logins
    told = refusals.told(1.0 + PERIOD)
    assert (1000, "for x@b.example from 10.0.0.2", 0) == (
        told.failed_logins,
        told.last_failed_login,
        told.refused_calls,
    )
    assert MOST_LINES == len(log.records)
    refusals.login("x@b.example", "10.0.0.2", 2.0 + PERIOD)
    assert [f"{1000 - MOST_LINES} more like this, not listed one by one"] == [
        one.getMessage() for one in log.records[MOST_LINES:-1]
    ]


def test_what_the_sender_chose_is_fit_for_one_line(log: pytest.LogCaptureFixture) -> None:
    """Of a bounded length, and without control characters."""
    refusals = Refusals()
    refusals.call("x\n2026 - forged line" + "y" * 1000, "10.0.0.1", 0.0)
    refusals.login("a@b.example", "10.0.0.1\x85forged", 0.0)
    line, other = [one.getMessage() for one in log.records]
    assert "for a@b.example from 10.0.0.1?forged" in other
    assert ("\n" not in line, len(line) < 200, True) == (True, True, line.endswith("…"))


def test_strangers_are_told_less_than_the_supervisor() -> None:
    """What it parses is the whole of it; what they get holds no process, error or name."""
    status = StatusDocument("a", "h", 1, "cpu", "running", pid=9, failure="why", active_experiments=["train"])
    status = replace(status, datasets=[{"name": "secret"}], last_failed_login="for x")
    public = json.loads(status.to_public_json())
    assert status == parse_status(status.to_json())
    assert {"factory_name", "factory_hostname", "factory_port", "device", "status", "phase"} <= set(public)
    assert not {"pid", "failure", "datasets", "last_failed_login", "interrupted_jobs"} & set(public)
    assert 1 == public["active_experiments"]


# --- connections ---


def test_one_address_has_its_part_of_the_connections() -> None:
    """And what ended makes room, once."""
    connections = Connections()
    assert [True] * ANONYMOUS == [connections.admit(("10.0.0.1", port), None) for port in range(ANONYMOUS)]
    assert not connections.admit(("10.0.0.1", 1000), None)
    assert connections.admit(("10.0.0.2", 1), None)
    connections.left(("10.0.0.1", 0))
    connections.left(("10.0.0.1", 0))
    assert connections.admit(("10.0.0.1", 1000), None)
    assert not connections.admit(("10.0.0.1", 1001), None)
    connections.left(("10.0.0.1", 1))
    connections.left(("10.0.0.1", 1))
    assert connections.admit(("10.0.0.1", 1001), None)
    assert not connections.admit(("10.0.0.1", 1002), None)


def test_an_address_that_a_user_came_from_has_more() -> None:
    """His uploads are known to be his only when they are whole."""
    connections = Connections()
    connections.admit(("10.0.0.1", 0), None)
    connections.vouch(("10.0.0.1", 0))
    assert [True] * TRUSTED == [connections.admit(("10.0.0.1", port), None) for port in range(1, TRUSTED + 1)]
    assert not connections.admit(("10.0.0.1", 1000), None)


def test_probes_get_through_when_all_is_taken() -> None:
    """A flood from elsewhere leaves room for this host itself."""
    connections = Connections()
    assert all(connections.admit((f"10.0.{n // 250}.{n % 250}", n), None) for n in range(MOST))
    assert not connections.admit(("10.9.9.9", 1), None)
    assert [True] * OWN + [False] == [connections.admit(("127.0.0.1", n), None) for n in range(OWN + 1)]


# --- bodies ---


def test_bodies_share_their_room() -> None:
    """One alone may have any size; what ended makes room, also where it failed."""
    room = Room(100)
    with room.for_body(500), pytest.raises(NoRoom), room.for_body(1):
        pass
    with room.for_body(60), room.for_body(40), pytest.raises(NoRoom), room.for_body(1):
        pass
    with suppress(KeyError), room.for_body(100):
        raise KeyError
    with room.for_body(100):
        pass


def exchange(size: int, parts: list[bytes], limit: int) -> tuple[int, int]:
    """The status that is answered, and how many bytes the application was given."""
    got, sent, waiting = [], list[Any](), list(parts)

    async def app(_scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            got.append(len(message["body"]))
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", str(size).encode())] if size else []
    scope = {"type": "http", "path": "/x", "headers": headers, "client": ("10.0.0.1", 1)}
    asyncio.run(Bounds(app, {"/x": limit}, Connections())(scope, receive, send))
    return sent[0]["status"], sum(got)


@pytest.mark.parametrize(
    ("size", "parts", "expected"),
    [
        (6, [b"abc", b"def"], (200, 6)),
        (11, [b"abc"], (413, 0)),
        (0, [b"abcdef", b"ghijkl", b"m"], (413, 6)),
    ],
    ids=["fits", "says that it does not", "turns out not to"],
)
def test_a_body_is_within_its_bound(size: int, parts: list[bytes], expected: tuple[int, int]) -> None:
    """One that says that it is too large is not even asked for."""
    assert expected == exchange(size, parts, 10)
    assert issubclass(TooLarge, Exception)
