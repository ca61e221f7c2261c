"""What happened is kept: events, journal and ledger, in real files, whatever a crash or a full disk does to them."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_common.layout import HistoryFolder
from supervisor.effects import recorder as module
from supervisor.effects.recorder import (
    Recorder,
    Remembered,
    forget,
    read_ledger,
    read_lines,
    restored,
)
from supervisor.facts import OperatorAsked, ProbeAnswered, ProcessExited
from supervisor.history import Event, EventKind
from supervisor.policy.lifecycle import step
from supervisor.record import ExitCause, ExitKind, OperatorRequest, Wanted, WorkerRecord, WorkerState
from supervisor.spec import Rules
from tests.unit.fakes import status

EVENTS, JOURNAL, LEDGER = "events.jsonl", "journal.jsonl", "ledger.json"
AT = "2026-03-01T12:00:00+00:00"
KILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL")


def event(text: str = "ended: SIGKILL", **more: Any) -> Event:
    return Event("alpha", EventKind.EXITED, text, **more)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    made = Recorder(HistoryFolder(tmp_path / "history"))
    yield made
    made.close()


def test_events_are_lines_of_json(recorder: Recorder, tmp_path: Path) -> None:
    """In the order in which they were told, whole, and for nobody else to read."""
    told = [event(f"number {at} é\nline two", pid=at, exit_code=-9) for at in range(3)]
    for one in told:
        recorder.event(one, AT)
    recorder.close()
    assert [one.to_dict(AT) for one in told] == list(read_lines(tmp_path / "history" / EVENTS))
    assert 0o700 == (tmp_path / "history").stat().st_mode & 0o777


def test_the_journal_tells_what_step_made_of_each_fact(recorder: Recorder, tmp_path: Path) -> None:
    """Time, kind of fact, the state and generation after it, and the orders."""
    recorder.rules({"alpha": Rules(grace=7.0)}, 99.0)
    record = WorkerRecord("alpha")
    for fact in (OperatorAsked("alpha", OperatorRequest.START), ProcessExited("alpha", 1, KILLED)):
        made = step(record, fact, 100.0)
        recorder.fact(fact, made, 100.0)
        record = made.record
    recorder.close()
    chapter, asked, exited = read_lines(tmp_path / "history" / JOURNAL)
    assert 7.0 == chapter["rules"]["alpha"]["grace"]
    assert ("OperatorAsked", "alpha", "start", 100.0) == (
        asked["fact"],
        asked["name"],
        asked["request"],
        asked["t"],
    )
    assert (WorkerState.STARTING, 1, ["Launch"]) == (asked["s"], asked["g"], asked["o"])
    assert ("ProcessExited", "SIGKILL", 2) == (exited["fact"], exited["cause"]["detail"], exited["g"])


def test_a_years_probes_are_slim(recorder: Recorder, tmp_path: Path) -> None:
    """Of a status only what policy looks at is kept."""
    fact = ProbeAnswered("alpha", 1, status("alpha", 1, 77, registration="x" * 5000, active_experiments=["y" * 5000]))
    recorder.fact(fact, step(WorkerRecord("alpha", generation=1), fact, 1.0), 1.0)
    recorder.close()
    (line,) = read_lines(tmp_path / "history" / JOURNAL)
    assert (1, 77) == (line["status"]["generation"], line["status"]["pid"])
    assert (tmp_path / "history" / JOURNAL).stat().st_size < 500


def test_files_are_rotated_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fleet that runs for months keeps its disk; the newest lines are never those that go."""
    monkeypatch.setattr(module, "_EVENT_BYTES", 2000)
    recorder = Recorder(HistoryFolder(tmp_path))
    for at in range(100):
        recorder.event(event(f"number {at}"), AT)
    recorder.close()
    files = sorted(path.name for path in tmp_path.glob(f"{EVENTS}*"))
    assert [EVENTS, *(f"{EVENTS}.{number}" for number in range(1, 5))] == files
    assert all(path.stat().st_size <= 2000 for path in tmp_path.glob(f"{EVENTS}*"))
    told = [line["text"] for name in reversed(files) for line in read_lines(tmp_path / name)]
    assert [f"number {at}" for at in range(100 - len(told), 100)] == told


def test_torn_lines_are_skipped_and_the_next_supervisor_goes_on(tmp_path: Path) -> None:
    """A line that a crash cut off, garbage in the middle, and what is no object: all other lines are read."""
    whole = json.dumps(event("first").to_dict(AT))
    garbage = [whole.encode(), b"\xff\x00garbage", b"[1, 2]", b"7", b"", whole.encode(), whole.encode()[:40]]
    (tmp_path / EVENTS).write_bytes(b"\n".join(garbage))
    assert ["first", "first"] == [line["text"] for line in read_lines(tmp_path / EVENTS)]
    recorder = Recorder(HistoryFolder(tmp_path))
    recorder.event(event("after the crash"), AT)
    recorder.event(event("second"), AT)
    recorder.close()
    told = [line["text"] for line in read_lines(tmp_path / EVENTS)]
    assert ["first", "first", "after the crash", "second"] == told


def test_no_file_is_an_error_that_says_so(tmp_path: Path) -> None:
    """A reader knows the difference between nothing and no history."""
    with pytest.raises(FileNotFoundError):
        list(read_lines(tmp_path / EVENTS))


# --- the ledger ---

RECORDS = {
    "alpha": WorkerRecord("alpha", wanted=Wanted.UP, restarts=3, restarts_by_cause={"signal": 3}, last_exit=KILLED),
    "beta": WorkerRecord("beta", wanted=Wanted.DOWN, reason="stopped", asked="stopped by the operator"),
}
REMEMBERED = {
    "alpha": Remembered(Wanted.UP, "", 3, {"signal": 3}, KILLED),
    "beta": Remembered(Wanted.DOWN, "stopped by the operator", 0, {}, None),
}


def test_the_next_supervisor_reads_what_the_last_one_left(recorder: Recorder, tmp_path: Path) -> None:
    """What is wanted, the counts by cause, and how each ended last."""
    recorder.ledger(RECORDS, running=True)
    recorder.close()
    assert REMEMBERED == read_ledger(HistoryFolder(tmp_path / "history"), RECORDS)
    assert [LEDGER] == [path.name for path in (tmp_path / "history").glob("ledger*")]


def test_a_fleet_that_went_down_in_order_leaves_nothing_to_remember(recorder: Recorder, tmp_path: Path) -> None:
    """The next `fleet up` starts everything."""
    recorder.ledger(RECORDS, running=True)
    recorder.ledger(RECORDS, running=False)
    recorder.close()
    assert {} == read_ledger(HistoryFolder(tmp_path / "history"), RECORDS)


def test_the_ledger_is_written_only_when_it_changed(recorder: Recorder, tmp_path: Path) -> None:
    """A probe a second must not be a write a second."""
    recorder.ledger(RECORDS, running=True)
    recorder.close()
    before = (tmp_path / "history" / LEDGER).stat().st_ino
    again = Recorder(HistoryFolder(tmp_path / "history"))
    again.ledger(RECORDS, running=True)  # a new recorder does not know what the file holds
    again.ledger(dict(RECORDS), running=True)
    again.close()
    after = (tmp_path / "history" / LEDGER).stat().st_ino
    changed = Recorder(HistoryFolder(tmp_path / "history"))
    changed.close()
    assert (False, after) == (before == after, (tmp_path / "history" / LEDGER).stat().st_ino)


def test_a_reader_never_sees_half_a_ledger(tmp_path: Path) -> None:
    """It is replaced whole, hundreds of times, under the eyes of a reader."""
    recorder = Recorder(HistoryFolder(tmp_path))
    recorder.ledger(RECORDS, running=True)
    for at in range(300):
        recorder.ledger({**RECORDS, "gamma": WorkerRecord("gamma", restarts=at, wanted=Wanted.UP)}, running=True)
    seen = 0
    while seen < 299:
        read = read_ledger(HistoryFolder(tmp_path), RECORDS)
        assert read in ({}, REMEMBERED) or {"alpha", "beta", "gamma"} == set(read)
        seen = read["gamma"].restarts if "gamma" in read else seen
    recorder.close()
    assert 299 == seen


LEDGER_NOW: dict[str, Any] = {"version": 1, "running": True}
WORKER = {"wanted": "down", "reason": "stopped", "restarts": 2, "restarts_by_cause": {"oom": 2}, "last_exit": None}


@pytest.mark.parametrize(
    ("worker", "expected"),
    [
        (WORKER, Remembered(Wanted.DOWN, "stopped", 2, {"oom": 2}, None)),
        # an older version knew less
        ({"wanted": "up"}, Remembered(Wanted.UP, "", 0, {}, None)),
        (
            {"wanted": "up", "last_exit": {"kind": "clean", "detail": "exit code 0"}},
            Remembered(Wanted.UP, "", 0, {}, ExitCause(ExitKind.CLEAN, "exit code 0")),
        ),
        # a newer one knows more
        ({**WORKER, "mood": "fine"}, Remembered(Wanted.DOWN, "stopped", 2, {"oom": 2}, None)),
    ],
)
def test_ledgers_of_other_versions_are_read(tmp_path: Path, worker: dict[str, Any], expected: Remembered) -> None:
    """An upgrade, and going back from one, loses nothing that both know."""
    document = {**LEDGER_NOW, "workers": {"alpha": worker}, "version": 99 if "mood" in worker else 1, "new": [1]}
    (tmp_path / LEDGER).write_text(json.dumps(document))
    assert {"alpha": expected} == read_ledger(HistoryFolder(tmp_path), RECORDS)


UNKNOWN = "was lost, and with it whether this was stopped"


def test_without_a_ledger_everything_starts(tmp_path: Path) -> None:
    """It is the first start, or the fleet was stopped in order."""
    assert {} == read_ledger(HistoryFolder(tmp_path), RECORDS)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"7", b"null", b'{"running": true}', b'{"running": true, "workers": 3}', b"[" * 30_000,
     b'{"running": "yes", "workers": {}}', bytes(range(256))],
)  # fmt: skip
def test_a_ledger_that_cannot_be_read_starts_nobody(
    tmp_path: Path, raw: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody may have been stopped by an operator, who stands at the machine by now. The log says so, the file is kept,
    and a second start says the same."""
    for _ in range(2):
        (tmp_path / LEDGER).write_bytes(raw)
        past = read_ledger(HistoryFolder(tmp_path), RECORDS)
        assert {"alpha": Wanted.DOWN, "beta": Wanted.DOWN} == {name: one.wanted for name, one in past.items()}
        assert all(UNKNOWN in one.reason for one in past.values())
    assert raw == (tmp_path / f"{LEDGER}.damaged").read_bytes() == (tmp_path / LEDGER).read_bytes()
    assert f"{LEDGER} cannot be used" in caplog.text


def test_the_counts_of_a_lost_ledger_are_those_of_the_one_before(tmp_path: Path) -> None:
    """Who was wanted there may have been stopped since; a crash that it knows of has happened."""
    recorder = Recorder(HistoryFolder(tmp_path))
    recorder.ledger(RECORDS, running=True)
    recorder.ledger({**RECORDS, "alpha": WorkerRecord("alpha", wanted=Wanted.DOWN)}, running=True)
    recorder.close()
    for damage in (lambda: (tmp_path / LEDGER).write_bytes(b"\0" * 300), (tmp_path / LEDGER).unlink):
        damage()
        alpha = read_ledger(HistoryFolder(tmp_path), RECORDS)["alpha"]
        assert (Wanted.DOWN, 3, {"signal": 3}, KILLED) == (
            alpha.wanted, alpha.restarts, alpha.restarts_by_cause, alpha.last_exit
        )  # fmt: skip
    forget(HistoryFolder(tmp_path))
    assert {} == read_ledger(HistoryFolder(tmp_path), RECORDS)


@pytest.mark.parametrize(
    "worker",
    [{"wanted": "sideways"}, {"wanted": "up", "last_exit": {"kind": "moonlight", "detail": ""}}, {}, 3, None,
     {"wanted": "up", "restarts": -1}, {"wanted": "up", "restarts": True}, {"wanted": "up", "reason": ["x"]}],
)  # fmt: skip
def test_one_bad_entry_takes_no_other_with_it(tmp_path: Path, worker: Any) -> None:
    """An entry in words of another version, an unknown kind of end say, leaves its worker down; the others are
    remembered."""
    (tmp_path / LEDGER).write_text(json.dumps({**LEDGER_NOW, "workers": {"alpha": worker, "beta": WORKER}}))
    past = read_ledger(HistoryFolder(tmp_path), RECORDS)
    assert Remembered(Wanted.DOWN, "stopped", 2, {"oom": 2}, None) == past["beta"]
    assert (Wanted.DOWN, True) == (past["alpha"].wanted, UNKNOWN in past["alpha"].reason)


def test_a_restored_record_hides_no_crash() -> None:
    """Counts and the last end come back; of a line that was stopped also who stopped it."""
    rules = Rules(grace=3.0)
    alpha = restored(WorkerRecord("alpha", rules), REMEMBERED["alpha"])
    assert (3, {"signal": 3}, KILLED, "") == (alpha.restarts, alpha.restarts_by_cause, alpha.last_exit, alpha.reason)
    beta = restored(WorkerRecord("beta", rules), REMEMBERED["beta"])
    sentence = "stopped by the operator"
    assert (WorkerState.DOWN, Wanted.DOWN, sentence, sentence) == (beta.state, beta.wanted, beta.reason, beta.asked)
    assert (rules, rules) == (alpha.rules, beta.rules)


# --- a full disk ---


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    libc = ctypes.CDLL(None, use_errno=True)
    folder = tmp_path / "tiny"
    folder.mkdir()
    if libc.mount(b"tmpfs", str(folder).encode(), b"tmpfs", 0, b"size=64k,mode=0700") != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {os.strerror(ctypes.get_errno())}")
    yield folder
    libc.umount2(str(folder).encode(), 2)


def test_a_full_disk_loses_lines_and_nothing_else(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No error reaches the fleet, neither while the disk is full nor at the end; with room again, lines are kept."""
    monkeypatch.setattr("logging.raiseExceptions", False)  # as the daemon has it
    recorder = Recorder(HistoryFolder(tiny))
    recorder.event(event("before"), AT)
    for at in range(200):
        recorder.event(event(f"{at} " + "x" * 1000), AT)
        recorder.ledger({"alpha": WorkerRecord("alpha", restarts=at, reason="y" * 20_000)}, running=True)
    fact = OperatorAsked("alpha", OperatorRequest.START, why="z" * 70_000)
    recorder.fact(fact, step(WorkerRecord("alpha"), fact, 1.0), 1.0)
    recorder.close()
    assert not recorder._thread.is_alive()
    assert "before" == next(read_lines(tiny / EVENTS))["text"]
    (tiny / JOURNAL).unlink(missing_ok=True)
    (tiny / EVENTS).write_bytes((tiny / EVENTS).read_bytes()[:10_000])
    again = Recorder(HistoryFolder(tiny))
    again.event(event("room again"), AT)
    again.ledger(RECORDS, running=True)
    again.close()
    assert "room again" == [line["text"] for line in read_lines(tiny / EVENTS)][-1]
    assert REMEMBERED == read_ledger(HistoryFolder(tiny), RECORDS)


def test_lines_come_back_when_there_is_room_again(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same recorder goes on after the operator has made room."""
    monkeypatch.setattr("logging.raiseExceptions", False)
    ballast = tiny / "ballast"
    recorder = Recorder(HistoryFolder(tiny))
    recorder.event(event("before"), AT)
    ballast.write_bytes(b"x" * 50_000)
    for at in range(60):
        recorder.event(event(f"{at} " + "x" * 1000), AT)
    _drained(recorder)
    ballast.unlink()
    for at in range(3):
        recorder.event(event(f"room again {at}"), AT)
    recorder.close()
    told = [line["text"] for line in read_lines(tiny / EVENTS)]
    assert ("before", "room again 2") == (told[0], told[-1])


def _drained(recorder: Recorder) -> None:
    """Wait until all that was handed to ``recorder`` has been tried."""
    import threading

    done = threading.Event()
    recorder._work.put(done.set)
    assert done.wait(20)
