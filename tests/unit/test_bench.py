"""The pure parts of ``scripts/bench``: statistics, tables, the document, the command line. No process is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fleet_tools.bench import benches, cli, figures

ROOT = Path(__file__).parents[2]


Figure, Section, Target = figures.Figure, figures.Section, figures.Target
SETTING = figures.Setting(
    "scripts/bench x", "2025-01-02", "A CPU", 2, 24.0, 0.1, "6.1", "3.11.7", "0.1.0", "0.9.5", "2.2"
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (0.0004, "0"),
        (0.2171, "0.217"),
        (0.5, "0.5"),
        (1.0, "1"),
        (2.345, "2.35"),
        (12.44, "12.4"),
        (20.0, "20"),
        (1530.4, "1530"),
    ],
)
def test_a_number_has_three_digits_and_no_exponent(value: float, shown: str) -> None:
    """Also at the seams between the ranges."""
    assert shown == figures.number(value)


@pytest.mark.parametrize(
    ("target", "values", "holds"),
    [
        (Target(0.6), (0.1, 0.6, 9.0), True),
        (Target(0.6), (0.1, 0.61, 0.7), False),
        (Target(10, at_least=True), (10.0,), True),
        (Target(10, at_least=True), (9.9,), False),
        (None, (1.0,), None),
    ],
)
def test_a_target_is_held_against_the_median(target: Any, values: tuple[float, ...], holds: bool | None) -> None:
    """One bad round of three misses nothing; no target holds nothing."""
    assert holds is Figure("x", "s", values, target).holds


def test_a_ratio_is_rival_by_ours() -> None:
    """Above 1 means that fleet needs less."""
    ratio = figures.ratio(
        "faster", Figure("theirs", "s", (8.0, 9.0, 100.0)), Figure("ours", "s", (0.3,)), Target(10, at_least=True)
    )
    assert pytest.approx(30.0) == ratio.median
    assert ratio.holds


def test_a_row_names_unit_rival_and_missed_target() -> None:
    """What a reader must not miss is marked."""
    assert ("a", "0.1", "0.2 s", "0.3", "3", "≤ 0.1 s", "**no**") == figures.row(
        Figure("a", "s", (0.3, 0.1, 0.2), Target(0.1))
    )
    assert ("_rival:_ b", "4", "4", "4", "1", "", "") == figures.row(Figure("b", "", (4.0,), rival=True))


def test_a_table_lines_up() -> None:
    """Every line is equally long, with the same number of cells."""
    lines = figures.table(
        [figures.row(Figure("a long name", "s", (1.0,))), figures.row(Figure("b", "ms", (2.0, 3.0)))]
    ).splitlines()
    assert 4 == len(lines)
    assert {(len(lines[0]), 8)} == {(len(line), line.count("|")) for line in lines}


def test_a_section_says_where_and_by_what_command() -> None:
    """A figure without its machine is worth nothing."""
    text = figures.markdown(Section("idle", "what it costs", (Figure("cpu", "%", (0.1,)),), ("a note",)), SETTING)
    assert text.startswith("### idle: what it costs\n\n| what")
    assert "\n\n- a note\n\n`scripts/bench x` on 2025-01-02: 2 cores (A CPU)" in text


def test_the_json_holds_every_value() -> None:
    """It can be read back, with the values, their summary and the target in words."""
    made = json.loads(
        json.dumps(
            figures.document([Section("idle", "t", (Figure("cpu", "%", (0.3, 0.1, 0.2), Target(0.1)),))], SETTING)
        )
    )
    told = made["benches"][0]["figures"][0]
    assert ([0.3, 0.1, 0.2], 0.1, 0.2, 0.3, "≤ 0.1 %", False) == tuple(
        told[key] for key in ("values", "min", "median", "max", "target", "met")
    )
    assert ("A CPU", False) == (made["setting"]["cpu"], made["benches"][0]["met"])


def test_filling_in_replaces_what_is_between_the_markers_only() -> None:
    """Twice gives the second; the other bench's place and the text around stay; a backslash is no escape."""
    text = "a\n<!-- bench x -->\nold\n<!-- end x -->\nb\n<!-- bench y -->\nkept\n<!-- end y -->\n"
    once = figures.filled(text, "x", "first\n\nlines")
    assert text.replace("old", r"\1 second") == figures.filled(once, "x", r"\1 second")


def test_a_document_without_the_place_is_refused() -> None:
    """Before anything is measured."""
    with pytest.raises(figures.NoPlace, match="bench z"):
        figures.filled("nothing here", "z", "body")


def test_the_document_has_a_place_for_every_bench() -> None:
    """``scripts/bench all --write docs/performance.md`` can fill in everything."""
    text = (ROOT / "docs" / "performance.md").read_text()
    for name in benches.BENCHES:
        assert "body" in figures.filled(text, name, "body")


def test_benches_are_chosen_by_name() -> None:
    """all means all, in the list's order; a name given twice runs once."""
    assert list(benches.BENCHES) == cli.chosen(["idle", "all"])
    assert ["status", "idle"] == cli.chosen(["status", "idle", "status"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a bench"),
        (["recovry"], "no bench named 'recovry'"),
        (["idle", "--rounds", "0"], "not a whole number"),
        (["idle", "--datasites", "x"], "not a whole number"),
        (["idle", "--write", "/nowhere/at/all.md"], "No such file"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before any process is started, and without a traceback."""
    with pytest.raises(SystemExit) as ended:
        cli.run(words)
    assert 2 == ended.value.code
    assert said in capsys.readouterr().err


def test_a_document_that_lacks_a_place_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found before minutes are spent."""
    (tmp_path / "d.md").write_text("# nothing\n")
    with pytest.raises(SystemExit) as ended:
        cli.run(["idle", "--write", str(tmp_path / "d.md")])
    assert (2, True) == (ended.value.code, "bench idle" in capsys.readouterr().err)


def test_list_names_every_bench(capsys: pytest.CaptureFixture[str]) -> None:
    """With what it measures, and exit code 0."""
    assert 0 == cli.run(["--list"])
    assert list(benches.BENCHES) == [line.split()[0] for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("median", "unmeasured", "remains", "code"),
    [(1.0, [], [], 0), (3.0, [], [], 1), (1.0, ["why"], [], 3), (1.0, [], ["process 1"], 3), (3.0, ["why"], [], 3)],
)
def test_the_exit_code_tells_the_verdict(median: float, unmeasured: list[str], remains: list[str], code: int) -> None:
    """Something unmeasured or left behind outweighs a missed target."""
    assert code == cli._verdict([Section("x", "t", (Figure("a", "s", (median,), Target(2.0)),))], unmeasured, remains)
