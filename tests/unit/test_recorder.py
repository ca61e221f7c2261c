"""What is kept of a fleet's life: the journal's lines, and the ledger for the next supervisor."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from supervisor.effects import recorder
from supervisor.effects.recorder import JOURNAL, LEDGER, Recorder, read_ledger, read_lines, restored
from supervisor.facts import DeadlineReached
from supervisor.policy.lifecycle import Step
from supervisor.record import ExitCause, ExitKind, Wanted, WorkerRecord, WorkerState
from supervisor.spec import Rules

KILLED = ExitCause(ExitKind.SIGNAL, "SIGKILL", -9, "SIGKILL")
CRASHED = WorkerRecord(
    "alpha", wanted=Wanted.UP, restarts=3, restarts_by_cause={"signal": 2, "hung": 1}, last_exit=KILLED
)


def test_times_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    """A replay has to see the same order of a deadline and the moment it was reached."""
    moment = 12345.678901234567
    made = Step(WorkerRecord("alpha", state=WorkerState.BACKOFF, generation=2))
    keeper = Recorder(tmp_path)
    keeper.fact(DeadlineReached("alpha", 2), made, moment)
    keeper.close()
    assert [{"t": moment, "fact": "DeadlineReached", "name": "alpha", "generation": 2, "s": "backoff", "g": 2}] == list(
        read_lines(tmp_path / JOURNAL)
    )


def test_what_a_reload_brings_is_told_and_nothing_is_told_of_nothing(tmp_path: Path) -> None:
    """One line for all that joined; none when nobody did."""
    keeper = Recorder(tmp_path)
    keeper.added({}, 1.0)
    keeper.added({"beta": Rules(grace=3.0)}, 2.0)
    keeper.close()
    (line,) = read_lines(tmp_path / JOURNAL)
    assert (2.0, 3.0) == (line["t"], line["added"]["beta"]["grace"])


def test_torn_lines_are_passed_over(tmp_path: Path) -> None:
    """A crash, or a full disk, may have torn any of them."""
    path = tmp_path / JOURNAL
    path.write_text('{"t":1}\n{"t":2,"fa\n[3]\n\n{"t":4}\n{"t":')
    assert [{"t": 1}, {"t": 4}] == list(read_lines(path))


def test_the_next_supervisor_knows_the_counts(tmp_path: Path) -> None:
    """No crash is hidden by the death of the supervisor that counted it."""
    keeper = Recorder(tmp_path)
    keeper.ledger({"alpha": CRASHED}, running=True)
    keeper.close()
    known = restored(WorkerRecord("alpha"), read_ledger(tmp_path)["alpha"])
    assert (3, {"signal": 2, "hung": 1}, KILLED) == (known.restarts, known.restarts_by_cause, known.last_exit)


@pytest.mark.parametrize("text", ["", "{", '{"running": true}', "[]", '{"running": true, "workers": {"alpha": {}}}'])
def test_a_ledger_that_cannot_be_read_is_no_obstacle(tmp_path: Path, text: str) -> None:
    """The fleet starts, with nothing remembered."""
    (tmp_path / LEDGER).write_text(text)
    assert {} == read_ledger(tmp_path)


def test_a_full_disk_stops_nobody_and_what_comes_later_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ledger of a full disk is lost; the next one that differs is written."""
    keeper = Recorder(tmp_path)
    full = threading.Event()
    full.set()
    real = Path.write_text

    def write_text(path: Path, text: str) -> int:
        if full.is_set():
            raise OSError(28, "No space left on device")
        return real(path, text)

    monkeypatch.setattr(recorder.Path, "write_text", write_text)
    keeper.ledger({"alpha": CRASHED}, running=True)
    keeper.rules({"alpha": Rules()}, 1.0)
    while not (tmp_path / JOURNAL).exists():
        threading.Event().wait(0.01)
    full.clear()
    keeper.ledger({"alpha": CRASHED}, running=True)
    keeper.close()
    assert ["alpha"] == list(json.loads((tmp_path / LEDGER).read_text())["workers"])
