"""`fleet events`: what happened, from files alone, with and without a supervisor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from supervisor.faces import events as history_of
from supervisor.faces.cli import app

ROOT = Path(__file__).resolve().parents[2]
FLEET_YAML = """\
version: 1
name: detroit
dashboard: embedded
datasites:
  - {name: line_a, port: 8080}
  - {name: line_b, port: 8081}
"""
CEILING = 20.0


def event(number: int, name: str = "line_a", **more: Any) -> dict[str, Any]:
    at = f"2026-03-01T12:00:{number % 60:02d}+00:00"
    return {"at": at, "name": name, "event": "exited", "text": f"ended: number {number}", **more}


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(one) + "\n" for one in events)


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML)
    (tmp_path / ".fleet" / "history").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def history(plant: Path) -> Path:
    return plant / ".fleet" / "history" / "events.jsonl"


def fleet(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_the_last_events_are_shown_oldest_first(history: Path) -> None:
    """-n of them, in words: when, who, what, why."""
    history.write_text(lines(*(event(at) for at in range(100))))
    result = fleet("events", "-n", "2")
    expected = "2026-03-01 12:00:38  line_a                exited              ended: number 98\n"
    expected += "2026-03-01 12:00:39  line_a                exited              ended: number 99\n"
    assert (0, expected) == (result.exit_code, result.output)
    assert 20 == len(fleet("events").output.splitlines())
    assert "" == fleet("events", "-n", "0").output


def test_events_of_one_line(history: Path) -> None:
    """By name; `fleet` is the fleet as a whole; a name that is none is told apart."""
    history.write_text(lines(event(1), event(2, "line_b"), event(3, "fleet"), event(4)))
    assert ["1", "4"] == [line.split()[-1] for line in fleet("events", "line_a").output.splitlines()]
    assert ["3"] == [line.split()[-1] for line in fleet("events", "fleet").output.splitlines()]
    assert (0, "") == (fleet("events", "dashboard").exit_code, fleet("events", "dashboard").output)
    result = fleet("events", "line_x")
    assert 4 == result.exit_code
    assert "known: line_a, line_b, dashboard, fleet" in result.output


def test_a_line_that_left_fleet_yaml_keeps_its_history(history: Path) -> None:
    """Who wants to know why it was removed can still ask."""
    history.write_text(lines(event(1, "line_old"), event(2)))
    result = fleet("events", "line_old")
    assert (0, True) == (result.exit_code, "number 1" in result.output)


def test_rotated_files_count_too(history: Path) -> None:
    """The newest first, as many files as are needed."""
    history.write_text(lines(event(8), event(9)))
    history.with_name("events.jsonl.1").write_text(lines(event(6, "line_b"), event(7)))
    history.with_name("events.jsonl.2").write_text(lines(event(4), event(5, "line_b")))
    assert ["6", "7", "8", "9"] == [line.split()[-1] for line in fleet("events", "-n", "4").output.splitlines()]
    assert ["5", "6"] == [line.split()[-1] for line in fleet("events", "line_b").output.splitlines()]


def test_as_json_every_field_is_there(history: Path) -> None:
    """One object a line, as the supervisor wrote it."""
    told = [event(1, signal="SIGKILL", exit_code=-9, cause="signal"), event(2)]
    history.write_text(lines(*told))
    assert told == [json.loads(line) for line in fleet("events", "--json").output.splitlines()]


def test_torn_lines_are_passed_over(history: Path) -> None:
    """What a crash or a full disk left behind hides no other event, and is no traceback."""
    torn = json.dumps(event(2))[:30].encode()
    history.write_bytes(lines(event(1)).encode() + b"\xff\xfe\n[1]\n7\n\n" + lines(event(3)).encode() + torn)
    assert ["1", "3"] == [line.split()[-1] for line in fleet("events").output.splitlines()]


def test_odd_events_of_another_version_are_shown_as_far_as_they_go(history: Path) -> None:
    """A field that is missing, a time that is none, control characters: one clean line each."""
    history.write_text(lines({"at": "yesterday", "name": "line_a"}, {**event(1), "text": "a\x1b[2Jb\nc"}))
    first, second = fleet("events").output.splitlines()
    assert first.startswith("yesterday")
    assert second.endswith("a�[2Jb c")


def test_no_history_yet_is_no_error(plant: Path) -> None:
    """Before the first start nothing has happened."""
    assert (0, "") == (fleet("events").exit_code, fleet("events").output)


class Over(Exception):
    """The test has seen enough."""


def followed(path: Path, *deeds: Any, begin: int | None = None) -> Iterator[dict[str, Any]]:
    """Events as they happen; each time that nothing is new the next deed is done."""
    left = list(deeds)

    def pause() -> None:
        if not left:
            raise Over
        left.pop(0)()

    return history_of.follow(path.parents[1], None, pause, begin)


def collected(events: Iterator[dict[str, Any]]) -> list[str]:
    told: list[str] = []
    try:
        for one in events:
            told.append(one["text"].split()[-1])  # noqa: PERF401 - what was told before the end counts
    except Over:
        return told
    return told


def appended(path: Path, text: str) -> Any:
    def deed() -> None:
        with path.open("a") as file:
            file.write(text)

    return deed


def test_following_shows_what_happens_from_now_on(history: Path) -> None:
    """Not what was; a line that is written in two pieces is one event."""
    history.write_text(lines(event(1)))
    whole = lines(event(3))
    deeds = [appended(history, lines(event(2))), appended(history, whole[:20]), appended(history, whole[20:])]
    assert ["2", "3"] == collected(followed(history, *deeds))


def test_following_goes_on_across_rotation_and_a_file_that_is_not_there_yet(history: Path) -> None:
    """Nothing is lost when the file is replaced, nor before the first event of all."""

    def rotate() -> None:
        history.rename(history.with_name("events.jsonl.1"))
        history.write_text(lines(event(3)))

    deeds = [appended(history, lines(event(1))), appended(history, lines(event(2))), rotate]
    assert ["1", "2", "3"] == collected(followed(history, *deeds, appended(history, lines(event(4)))))[:3]


def test_a_line_that_was_torn_by_a_crash_takes_no_followed_event_with_it(history: Path) -> None:
    """The next supervisor ends the torn line before it writes its own."""
    history.write_text(lines(event(1)))
    torn = json.dumps(event(2))[:30]
    deeds = [appended(history, torn), appended(history, "\n" + lines(event(3)))]
    assert ["3"] == collected(followed(history, *deeds))


@pytest.mark.process
def test_follow_shows_the_last_ones_then_the_new_ones_until_interrupted(plant: Path, history: Path) -> None:
    """The real command: JSON lines as they happen, of one line only; Ctrl-C ends it with 130 and no traceback."""
    history.write_text(lines(event(1), event(2, "line_b")))
    command = [sys.executable, "-m", "supervisor", "events", "line_a", "-f", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert event(1) == json.loads(child.stdout.readline())
        appended(history, lines(event(3, "line_b"), event(4)))()
        assert event(4) == json.loads(child.stdout.readline())
        child.send_signal(signal.SIGINT)
        assert ((b"", b""), 130) == (child.communicate(timeout=CEILING), child.returncode)
    finally:
        child.kill()
        child.wait()


def test_nothing_is_lost_between_the_last_events_and_the_new_ones(history: Path) -> None:
    """An event that is written while the last ones are shown is shown too, once."""
    history.write_text(lines(event(1), event(2)))
    whole = lines(event(3))
    appended(history, whole[:20])()
    shown, end = history_of.last_and_end(history.parents[1], None, 20)
    appended(history, whole[20:] + lines(event(4)))()
    assert ["1", "2"] == [one["text"].split()[-1] for one in shown]
    assert ["3", "4"] == collected(followed(history, begin=end))
