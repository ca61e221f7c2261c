"""Whatever a file, a datagram or an answer holds, what comes of it is a value of the right types, or a reason."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasite_worker.credentials import AdminLogin, Identity
from fleet_common.contract import LARGEST_PULSE, DatasetOrder, LiveSettings, StatusDocument, parse_status
from fleet_common.untrusted import Unfit, decoded, fitted
from supervisor.effects.assigner import _Document
from supervisor.effects.recorder import Remembered, _Ledger
from supervisor.effects.run_files import RunFile
from supervisor.record import ExitCause, ExitKind, Wanted

LIMIT = 1024 * 1024
GOOD: list[Any] = [
    RunFile("alpha", 2, 77, 5, "boot", "print", 8080, ("GPU-0",)),
    Remembered(Wanted.UP, "why", 3, {"signal": 3}, ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL")),
    _Ledger(running=True, workers={"alpha": {"wanted": "up"}}),
    LiveSettings(3, 0.5, {"security_level": "high"}, datasets=(DatasetOrder("a", "/a.csv"),)),
    StatusDocument("a", "h", 1, "cpu", "running", datasets=[{"name": "d", "published_at": None, "problem": ""}]),
    Identity("ab", "cd", "root@x.example", "pw"),
    AdminLogin("a@x.example", "A", "pw"),
]
"""A value of every schema."""
NASTY: list[Any] = [None, True, False, 0, 1, -1, 1.5, "12", "", [], {}, 10**20, -(10**20), 10**400, [[[]]], {"a": None}]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NASTY),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def raw_of(value: Any) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("good", GOOD, ids=lambda good: type(good).__name__)
def test_what_we_write_we_read(good: Any) -> None:
    """Every schema takes its own values; and with a key of another version beside them."""
    assert good == decoded(raw_of(asdict(good)), type(good), LIMIT)
    assert good == decoded(raw_of({**asdict(good), "colour": "green"}), type(good), LIMIT)


@pytest.mark.parametrize("good", GOOD, ids=lambda good: type(good).__name__)
@given(data=st.data(), value=json_values)
def test_any_value_in_any_field_comes_back_whole_or_as_a_reason(good: Any, data: st.DataObject, value: Any) -> None:
    """Nothing is raised, and what is taken can be written and read again."""
    key = data.draw(st.sampled_from([field.name for field in fields(good)]))
    found = decoded(raw_of({**asdict(good), key: value}), type(good), LIMIT)
    assert isinstance(found, Unfit) or found == decoded(raw_of(asdict(found)), type(good), LIMIT)


@pytest.mark.parametrize("value", [*NASTY, 4_194_305, "alpha"])
def test_a_pid_is_a_number_that_can_be_a_worker(value: Any) -> None:
    """``true`` is 1 to Python, and 1 is init; -1 is everybody."""
    run = asdict(GOOD[0])
    assert isinstance(decoded(raw_of({**run, "pid": value}), RunFile, LIMIT), Unfit)
    missing = {key: one for key, one in run.items() if key != "pid"}
    assert Unfit("pid is missing") == decoded(raw_of(missing), RunFile, LIMIT)


@pytest.mark.parametrize(
    ("form", "values", "why"),
    [
        (RunFile, {"pid": True}, "pid is not a whole number"),
        (RunFile, {"pid": -1}, "pid is not between 2 and 4.1943e+06"),
        (RunFile, {"generation": "x"}, "generation is not a whole number"),
        (RunFile, {"gpus": [1]}, "gpus is not text"),
        (Remembered, {"wanted": "sideways"}, "wanted is not one of up, down"),
        (Remembered, {"restarts_by_cause": {"oom": None}}, "restarts_by_cause.oom is not a whole number"),
        (LiveSettings, {"heartbeat_interval": 0}, "heartbeat_interval is not between 0.001 and 1e+09"),
        (StatusDocument, {"datasets": [{"problem": []}]}, "datasets.problem is not text"),
    ],
)
def test_the_reason_names_the_field(form: Any, values: dict[str, Any], why: str) -> None:
    """So that whoever looks into the file finds it."""
    (good,) = (one for one in GOOD if type(one) is form)
    assert Unfit(why) == fitted({**json.loads(raw_of(asdict(good))), **values}, form)


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused_in_words(raw: bytes) -> None:
    """Nothing is raised."""
    assert isinstance(decoded(raw, StatusDocument, LIMIT), Unfit)


@pytest.mark.parametrize(
    "raw",
    [b"", b"[" * 30_000, b'{"a":' * 30_000, b"NaN", b"1e999", b'{"restarts": Infinity}', b"1" * 5000, b"\xff",
     b'{"running": true, "workers": {"a": ' + b"[" * 100 + b"]" * 100 + b"}}"],
)  # fmt: skip
def test_hostile_bytes_are_refused_in_words(raw: bytes) -> None:
    """Deep nesting, numbers that are none, numbers without end."""
    for form in (StatusDocument, _Ledger, _Document, dict[str, Any], Any):
        found = decoded(raw, form, LIMIT)
        assert isinstance(found, Unfit) or (form is Any and found == int(raw)), (form, found)


def test_what_is_too_long_is_not_even_looked_at() -> None:
    """A pulse has its limit."""
    long = StatusDocument("a", "h", 1, "cpu", "running", failure="x" * LARGEST_PULSE).to_json()
    assert Unfit(f"it has more than {LARGEST_PULSE} bytes") == parse_status(long, LARGEST_PULSE)


def test_half_characters_become_question_marks() -> None:
    """They could be neither logged nor stored."""
    status = parse_status(StatusDocument("a", "h", 1, "cpu", "running", failure="x\ud800é").to_json())
    assert isinstance(status, StatusDocument)
    assert "x?é" == status.failure
