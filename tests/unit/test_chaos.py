"""The pure parts of ``scripts/chaos``: the plan drawn from a seed, the verdict over events, the trimmed journal, the
command line. No fleet is started."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fleet_tools.chaos import cli, faults, journal, siege, verdict, writer
from fleet_tools.chaos import plan as chaos_plan

ROOT = Path(__file__).parents[2]


WEIGHTS = {name: fault.weight for name, fault in faults.FAULTS.items()}
AT = "2026-01-01T00:00:10+00:00"
SECONDS = 1767225610.0  # the same moment


# --- the plan ---


def test_a_seed_draws_the_same_faults_again() -> None:
    """All of it: kinds, victims, how hard, and the pauses. Another seed draws others."""
    assert chaos_plan.plan(7, 50, 3, WEIGHTS) == chaos_plan.plan(7, 50, 3, WEIGHTS)
    assert chaos_plan.plan(7, 50, 3, WEIGHTS) != chaos_plan.plan(8, 50, 3, WEIGHTS)


@pytest.mark.parametrize("seed", range(20))
def test_a_long_run_has_every_kind_and_every_line(seed: int) -> None:
    """As soon as there are enough faults; in a short one each is a kind that was asked for."""
    strikes = chaos_plan.plan(seed, 40, 3, WEIGHTS)
    assert (40, set(WEIGHTS), {0, 1, 2}) == (len(strikes), {s.kind for s in strikes}, {s.line for s in strikes})
    short = chaos_plan.plan(seed, 3, 1, {"worker-kill": 1})
    assert [("worker-kill", 0)] * 3 == [(strike.kind, strike.line) for strike in short]


def test_faults_that_must_be_alone_overlap_with_none() -> None:
    """Others go together, up to the limit, in their order."""
    strikes = chaos_plan.plan(3, 60, 2, WEIGHTS)
    groups = list(siege._groups(strikes, 3))
    assert list(strikes) == [strike for group in groups for strike in group]
    assert {1, 2, 3} == {len(group) for group in groups}
    assert all(len(group) == 1 for group in groups if any(faults.FAULTS[one.kind].alone for one in group))


# --- the verdict ---


def event(kind: str, generation: int, **more: Any) -> dict[str, Any]:
    told = {"name": "a", "event": kind, "generation": generation, "at": AT, "text": "", "pid": None, "signal": None}
    return {**told, "cause": "", "restarts": 0, "warning": False, **more}


def life() -> list[dict[str, Any]]:
    """Started, killed, restarted."""
    return [
        event("starting", 1, cause="fleet"),
        event("exited", 1, pid=100, cause="signal", signal="SIGKILL", warning=True),
        event("starting", 2, cause="signal", restarts=1, warning=True),
    ]


HIT = verdict.Injection("a", 100, "SIGKILL", SECONDS, True)


def test_a_told_life_has_no_problem() -> None:
    """Every restart, every injected end, no end of its own."""
    assert [] == verdict.unexplained_restarts(life(), {"a": 1}, [])
    assert [] == verdict.unreported_ends(life(), [HIT], [])
    assert [] == verdict.uncaused_ends(life(), [HIT], [])


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        (life()[:2], "a: restart 1 is not reported"),
        ([*life()[:2], {**life()[2], "cause": ""}], "a: restart 1 is reported without a cause"),
        ([life()[0], life()[2]], "a: restart 1 is reported, but the end before it is not"),
    ],
)
def test_a_restart_without_its_events_is_found(events: list[dict[str, Any]], problem: str) -> None:
    """Named by line and number; excused where the events may be lost."""
    assert [problem] == verdict.unexplained_restarts(events, {"a": 1}, [])
    assert [] == verdict.unexplained_restarts(events, {"a": 1}, [verdict.Excuse("a", SECONDS, SECONDS + 1, 0, 1)])
    assert [problem] == verdict.unexplained_restarts(events, {"a": 1}, [verdict.Excuse("a", 0.0, 1.0, 0, 1)])


def test_counts_begin_anew_after_an_orderly_down() -> None:
    """What was counted before it is still to be explained, by the events' own word."""
    stopped = event("supervisor_stopped", 0, name="fleet")
    assert ["a: restart 1 is not reported"] == verdict.unexplained_restarts([*life(), stopped], {"a": 1}, [])
    assert [] == verdict.unexplained_restarts([*life(), stopped], {"a": 0}, [])
    silent = [event("ready", 2, restarts=1), stopped]
    assert ["a: restart 1 is not reported"] == verdict.unexplained_restarts(silent, {"a": 0}, [])
    assert 2 == verdict.reported_restarts([*life(), stopped, *life()])


def test_an_injected_end_that_nobody_told_is_found() -> None:
    """Also one that is told with another signal; not one that fell into a time without supervisor."""
    other = [{**one, "signal": "SIGTERM"} for one in life()]
    assert ["a: the end of pid 100 by SIGKILL is not reported"] == verdict.unreported_ends(other, [HIT], [])
    assert 1 == len(verdict.unreported_ends([], [HIT], []))
    assert [] == verdict.unreported_ends([], [verdict.Injection("a", 100, "SIGKILL", SECONDS, False)], [])


def test_an_end_that_nobody_caused_is_found() -> None:
    """A probe that killed a healthy line, say; an end that the operator asked for is none."""
    assert 1 == len(verdict.uncaused_ends(life(), [], []))
    assert [] == verdict.uncaused_ends([event("exited", 1, pid=5, cause="operator")], [], [])
    inside, outside = (verdict.Excuse("a", SECONDS + d, SECONDS + d + 2, 0, 0) for d in (-1, 60))
    assert [] == verdict.uncaused_ends(life(), [], [inside])
    assert 1 == len(verdict.uncaused_ends(life(), [], [outside]))


@pytest.mark.parametrize(
    ("counts", "found"),
    [([20, 21, 20, 25, 22, 21], 0), ([20] * 5 + [40] * 5, 1), ([20, 40], 0), ([20, 20, 20, 90, 20, 20, 20], 0)],
)
def test_leaks_are_growth_that_stays(counts: list[int], found: int) -> None:
    """A request under way is none, and too few looks say nothing."""
    assert found == len(verdict.leaks({1: counts}))


# --- what is read back ---


class Data:
    """Behind a client that has one dataset and one object, of which each has its own values."""

    def __init__(self, *values: float) -> None:
        self.syft_action_data = self.data = self
        self._values = values

    def sum(self) -> float:
        return sum(self._values)


def client(datasets: dict[str, Any]) -> Any:
    kept = [SimpleNamespace(name=name, assets=[data]) for name, data in datasets.items()]
    return SimpleNamespace(api=SimpleNamespace(services=SimpleNamespace(dataset=SimpleNamespace(get_all=lambda: kept))))


def test_a_write_that_is_lost_or_changed_is_found() -> None:
    """Acknowledged and not there, or there with other values; what was never acknowledged is not asked for."""
    there = client({"one": Data(1.0, 2.0), "two": Data(5.0)})
    acknowledged = [{"op": "dataset", "name": name, "sum": 3.0} for name in ("one", "two", "three")]
    lost = writer._missing_datasets(there, [*acknowledged, {"op": "call", "name": "x"}])
    assert ["dataset two", "dataset three"] == lost


# --- the journal ---


def test_a_journal_is_trimmed_to_one_line_and_names_no_folder(tmp_path: Path) -> None:
    """Chapters keep the rules of that line alone; torn lines and other lines go; places are replaced."""
    source, target = tmp_path / "journal.jsonl", tmp_path / "kept.jsonl"
    lines = [
        {"t": 0, "fact": "X", "name": "a"},  # before any chapter: of a file that was rotated
        {"t": 1, "rules": {"a": {}, "b": {}}},
        {"t": 2, "fact": "X", "name": "a", "reason": f"{tmp_path}/state is full"},
        {"t": 3, "fact": "X", "name": "b"},
        {"t": 4, "added": {"c": {}}},
        {"t": 5, "rules": {"a": {}}},
    ]
    source.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"t": 6, "na')
    assert 3 == journal.keep(source, target, "a", {str(tmp_path): "/srv"})
    kept = [json.loads(line) for line in target.read_text().splitlines()]
    assert [1, 2, 5] == [line["t"] for line in kept]
    assert ({"a": {}}, "/srv/state is full") == (kept[0]["rules"], kept[1]["reason"])


def test_a_reload_is_trimmed_to_one_line_too(tmp_path: Path) -> None:
    """It can be replayed with that line alone; what concerns the fleet as a whole stays."""
    source, target = tmp_path / "journal.jsonl", tmp_path / "kept.jsonl"
    plan = {
        "add": ["a", "b"],
        "remove": [],
        "restart": {"b": ["port"]},
        "live": {},
        "fleet": ["host"],
        "refused": ["x"],
    }
    reload = {"t": 2, "message": "Reload", "members": {"a": {"port": 1}, "b": {"port": 2}}, "plan": plan, "told": ["b"]}
    lost = {"lost": {"b": "gone"}, "had": {"a": ["GPU-0"], "b": ["GPU-1"]}, "cards": [{"uuid": "GPU-0"}]}
    loss = {"t": 3, "message": "GpuLoss", "losses": lost, "placement": {"moved": ["a", "b"]}}
    source.write_text("".join(json.dumps(line) + "\n" for line in ({"t": 1, "rules": {"a": {}}}, reload, loss)))
    journal.keep(source, target, "a", {})
    _, kept, gone = (json.loads(line) for line in target.read_text().splitlines())
    about_a = {**plan, "add": ["a"], "restart": {}}
    assert {**reload, "members": {"a": {"port": 1}}, "plan": about_a, "told": []} == kept
    assert {**loss, "losses": {**lost, "lost": {}, "had": {"a": ["GPU-0"]}}, "placement": {"moved": ["a"]}} == gone


def test_a_long_journal_is_cut_at_a_line(tmp_path: Path) -> None:
    """It can be replayed as far as it goes."""
    source, target = tmp_path / "journal.jsonl", tmp_path / "kept.jsonl"
    source.write_text("".join(json.dumps({"t": n, "rules": {"a": "x" * 1000}}) + "\n" for n in range(100)))
    count = journal.keep(source, target, "a", {})
    assert journal.MOST - 1100 < target.stat().st_size <= journal.MOST
    assert list(range(count)) == [json.loads(line)["t"] for line in target.read_text().splitlines()]


# --- the command line ---


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--faults", "0"], "not a whole number"),
        (["--seed", "x"], "not a whole number"),
        (["--kinds", "worker-kil"], "no fault named 'worker-kil'"),
        (["now"], "unrecognized arguments"),
    ],
)
def test_wrong_usage_ends_with_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what is wrong, before anything is started."""
    with pytest.raises(SystemExit) as ended:
        cli.run(words)
    assert 2 == ended.value.code
    assert said in capsys.readouterr().err


def test_the_list_names_every_fault_and_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it does and what must hold."""
    assert 0 == cli.run(["--list"])
    told = capsys.readouterr().out
    assert all(name in told and fault.about in told for name, fault in faults.FAULTS.items())


def test_every_fault_stands_in_the_document() -> None:
    """docs/chaos.md explains what the list names."""
    text = (ROOT / "docs" / "chaos.md").read_text()
    assert [] == [name for name in faults.FAULTS if f"`{name}`" not in text]
