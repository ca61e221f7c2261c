"""The table is a pure function of a snapshot, and reads well at any width."""

from __future__ import annotations

import pytest
from rich.console import Console, RenderableType

from supervisor.faces.formatting import age, clean, duration, near, plural, size
from supervisor.faces.table import fleet_view, plain, text_of, why
from supervisor.snapshot import FleetSnapshot
from tests.unit.fake_supervisor import at_rest, fleet, worker

DASHBOARD = worker("dashboard", url="http://127.0.0.1:5000", registered=None, last_heartbeat=None)


def crowd() -> FleetSnapshot:
    """One of everything that an operator may have to look at."""
    return fleet(
        worker("detroit_line_alpha", pid=3141592),
        worker("detroit_line_beta", restarts=3, last_exit="SIGKILL"),
        at_rest("detroit_qc_station", wanted="up", state="backoff", reason="exit code 70", next_attempt_s=3.2),
        at_rest("line_q", wanted="up", state="quarantined", reason="port 8083 is taken", next_attempt_s=580.0),
        dashboard=DASHBOARD,
    )


def lines_of(view: RenderableType, width: int) -> list[str]:
    return text_of(view, width).splitlines()


def row(lines: list[str], name: str) -> str:
    return next(line for line in lines if line.startswith(f"{name} "))


@pytest.mark.parametrize("width", [80, 100, 160])
def test_fits_the_terminal(width: int) -> None:
    """No line of the display is wider than the terminal, and every row stays one line."""
    lines = lines_of(fleet_view(crowd(), width), width)
    assert [] == [line for line in lines if len(line) > width]
    assert 5 == sum("8080" in line for line in lines)


@pytest.mark.parametrize("width", [40, 80, 100, 160])
def test_names_and_states_are_never_dropped(width: int) -> None:
    """However narrow the terminal, name and state stand in every row in full."""
    lines = lines_of(fleet_view(crowd(), width), width)
    for worker_seen in crowd().datasites:
        assert worker_seen.state in row(lines, worker_seen.name)


def test_a_hundred_columns_hold_what_an_operator_was_promised() -> None:
    """At 100 columns a usual fleet loses only the readiness, which its state tells anyway; titles are shortened."""
    titles = next(line for line in lines_of(fleet_view(crowd(), 100), 100) if line.startswith("name"))
    assert "name state pid port dev up rst exit reg beat CPU mem" == " ".join(titles.split())


def test_a_wide_terminal_shows_every_column() -> None:
    """At 160 columns nothing is shortened."""
    titles = lines_of(fleet_view(crowd(), 160), 160)[3].split()
    expected = "name state pid port device up-time restarts last exit ready registered heartbeat CPU memory"
    assert expected.split() == titles


def test_what_is_wanted_is_shown_only_where_the_state_does_not_say_it() -> None:
    """The column `wanted` appears when a stop is under way, and not in a fleet that is as it was asked to be."""
    assert "wanted" not in plain(crowd())
    assert "wanted" in plain(fleet(worker(state="stopping", wanted="down")))


def test_state_is_told_by_colour_mark_and_word() -> None:
    """Colour is not the only carrier: each state has a mark and its word."""
    lines = lines_of(fleet_view(crowd(), 100), 100)
    assert "● ready" in row(lines, "detroit_line_beta")
    assert "✖ quarantined" in row(lines, "line_q")
    console = Console(force_terminal=True, color_system="standard", width=100)
    with console.capture() as caught:
        console.print(fleet_view(crowd(), 100))
    assert "\x1b[1;31m✖ quarantined" in caught.get()


def test_restarts_are_told_by_cause_where_there_is_room() -> None:
    """How often, and of what: crashes and hangs are different troubles. A narrow terminal shows the count."""
    snapshot = fleet(worker("line_a", restarts=3, restarts_by_cause={"signal": 2, "hung": 1}), worker("line_b"))
    assert "3 (1 hung, 2 signal)" in row(plain(snapshot).splitlines(), "line_a")
    assert "3 (1 hung, 2 signal)" in row(lines_of(fleet_view(snapshot, 160), 160), "line_a")
    narrow = row(lines_of(fleet_view(snapshot, 100), 100), "line_a")
    assert ("3", False) == (narrow.split()[8], "signal" in narrow)
    assert "(" not in row(plain(snapshot).splitlines(), "line_b")


def test_hostile_text_stays_text() -> None:
    """Markup, escape sequences and newlines in names and reasons are shown, never obeyed."""
    evil = "[red]x[/red]\x1b[2J\nline2"
    snapshot = fleet(at_rest(evil, wanted="up", state="backoff", reason=evil, last_exit=evil))
    for text in (plain(snapshot), text_of(fleet_view(snapshot, 160), 160)):
        assert "[red]x[/red]" in text
        assert "\x1b" not in text
        assert not any(line.startswith("line2") for line in text.splitlines())


def test_ages_come_from_the_snapshot() -> None:
    """The age of a heartbeat is told from taken_at: the same snapshot is the same text, whenever it is drawn."""
    snapshot = fleet(worker(last_heartbeat="2026-03-01T11:57:55+00:00"))
    assert "2m 05s" in plain(snapshot)


def test_every_datasite_that_is_not_ready_says_why_and_what_next() -> None:
    """Reason, next attempt and next step of each, the worst included."""
    expected = [
        "detroit_qc_station backoff: exit code 70; next attempt in 3.2s; next step: fleet logs detroit_qc_station",
        "line_q quarantined: port 8083 is taken; next attempt in 9m 40s;"
        " next step: fleet logs line_q, then fleet restart line_q",
    ]
    assert expected == why(crowd())


def test_a_datasite_that_does_not_answer_is_shown_so_at_once() -> None:
    """While it is still counted as ready: as a state, in the counts, with since when, why, and what follows."""
    snapshot = fleet(worker("line_a", not_answering_s=12.3, not_answering="no answer within 5 s"), worker("line_b"))
    lines = lines_of(fleet_view(snapshot, 160), 160)
    assert "▲ not answering" in row(lines, "line_a")
    assert "1 ready, 1 not answering" in lines[0]
    expected = "line_a not answering for 12s: no answer within 5 s; next step: fleet logs line_a"
    assert [expected] == why(snapshot)
    assert "not answering" in row(plain(snapshot).splitlines(), "line_a")


def test_a_deaf_dashboard_is_visible() -> None:
    """A datasite that is ready but unheard says so; a heartbeat-only central is a normal case and says nothing."""
    refused = worker("a", registered=False, registration="connection refused", last_heartbeat=None)
    failing = worker("b", heartbeat_error="HTTP 500")
    beats_only = worker("c", registered=False, registration="404")
    expected = ["a not registered: connection refused", "b heartbeat fails: HTTP 500"]
    assert expected == why(fleet(refused, failing, beats_only))


def test_plain_text_is_whole() -> None:
    """Off a terminal nothing is cut, boxed or coloured, and no line ends in blanks."""
    story = "exit code 70: " + "x" * 200
    text = plain(fleet(worker(restarts=1, last_exit=story), dashboard=DASHBOARD))
    assert story in text
    assert not set("─│┃━●\x1b") & set(text)
    assert [] == [line for line in text.splitlines() if line != line.rstrip()]


def test_sixty_four_datasites_fit_the_height() -> None:
    """In 30 lines, those that are not ready are shown, and the rest is counted."""
    many = [worker(f"line_{at:02d}") for at in range(64)]
    many[50] = at_rest("line_50", wanted="up", state="quarantined", reason="port 8080 is taken")
    lines = lines_of(fleet_view(fleet(*many), 100, 30, "Ctrl-C stops the fleet"), 100)
    assert len(lines) <= 30
    assert "quarantined" in row(lines, "line_50")
    shown = sum("4711" in line for line in lines[2:]) + 1
    assert f"  … and {64 - shown} more: {64 - shown} ready" in lines


def test_sixty_four_failures_fit_the_height() -> None:
    """Even when all are in trouble the display keeps to the terminal."""
    many = [at_rest(f"line_{at:02d}", wanted="up", state="backoff", reason="x") for at in range(64)]
    assert len(lines_of(fleet_view(fleet(*many, dashboard=DASHBOARD), 100, 30, "Ctrl-C"), 100)) <= 30


def test_the_header_counts() -> None:
    """Fleet, counts by state with the ready first, supervisor, dashboard."""
    lines = plain(crowd()).splitlines()
    assert lines[0].startswith("fleet detroit: 2 ready, 1 backoff, 1 quarantined (supervisor pid ")
    assert "dashboard: http://127.0.0.1:5000" == lines[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.41, "0.4s"),
        (9.99, "10.0s"),
        (59, "59s"),
        (245, "4m 05s"),
        (11520, "3h 12m"),
        (442800, "5d 03h"),
    ],
)
def test_durations_have_two_figures(seconds: float, text: str) -> None:
    """Durations are short enough for a column at any size."""
    assert text == duration(seconds)


def test_words() -> None:
    """Sizes, ages, plurals, near names."""
    assert ["0 B", "1.5 KiB", "2.0 GiB"] == [size(0), size(1536), size(2 * 1024**3)]
    assert "?" == age("yesterday", "2026-03-01T12:00:00+00:00")
    assert "?" == age("2026-03-01T12:00:00", "2026-03-01T12:00:00+00:00")
    assert ["1 process", "2 processes", "0 datasites"] == [
        plural(1, "process"),
        plural(2, "process"),
        plural(0, "datasite"),
    ]
    assert ["detroit_line_beta"] == near("detroit_line_Bta", ["detroit_line_beta", "qc"])
    assert "a b�c" == clean("a\nb\x1bc")
