"""`fleet restart --rolling`: one after another, gated on readiness, patient with trainings, and no further than a failure."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from supervisor.faces.cli import app
from supervisor.faces.client import ControlClient
from supervisor.faces.follow import by_name
from supervisor.faces.rolling_restart import Choice, Pace, Progress, choose, chosen, roll
from supervisor.snapshot import WorkerSnapshot
from tests.unit.fake_supervisor import FakeSupervisor, at_rest, fleet, listening, worker

LINES = ("line_a", "line_b", "line_c")
FLEET_YAML = "version: 1\nname: detroit\ndashboard: embedded\ndatasites:\n"
FLEET_YAML += "".join(f"  - {{name: {name}, port: {8080 + at}}}\n" for at, name in enumerate(LINES))


def seen(**training: list[str]) -> dict[str, WorkerSnapshot]:
    return by_name(fleet(*(worker(name, active_experiments=training.get(name, [])) for name in LINES)))


PACE = Pace(1, 300.0, 20.0)

# --- the choice ---


def test_one_at_a_time_in_the_order_of_asking() -> None:
    """The next one goes when nothing is under way, and not before."""
    assert Choice(("line_a",)) == choose(LINES, (), seen(), PACE, 0.0)
    assert Choice() == choose(LINES[1:], ("line_a",), seen(), PACE, 0.0)
    assert Choice(("line_b",)) == choose(LINES[1:], (), seen(), PACE, 0.0)
    assert Choice() == choose((), (), seen(), PACE, 0.0)


def test_max_unavailable_at_once() -> None:
    """As many as may be missing, those under way included."""
    two = Pace(2, 300.0, 20.0)
    assert Choice(("line_a", "line_b")) == choose(LINES, (), seen(), two, 0.0)
    assert Choice(("line_b",)) == choose(LINES[1:], ("line_a",), seen(), two, 0.0)
    assert Choice(LINES) == choose(LINES, (), seen(), Pace(9, 300.0, 20.0), 0.0)


def test_a_training_is_waited_for_and_others_go_first() -> None:
    """What trains keeps its turn, and it is said who, what, and for how long at most."""
    training = seen(line_a=["fit_model", "fit_other"])
    expected = Choice(("line_b",), {"line_a": "training fit_model, fit_other (at most 4m 10s more)"})
    assert expected == choose(LINES, (), training, PACE, 50.0)
    everyone = seen(line_a=["f"], line_b=["g"], line_c=["h"])
    assert set(LINES) == set(choose(LINES, (), everyone, PACE, 0.0).waiting_for)


def test_a_training_is_waited_for_to_the_limit_only() -> None:
    """Then it is restarted all the same; a limit of 0 waits for nobody."""
    training = seen(line_a=["fit_model"])
    assert Choice(("line_a",)) == choose(("line_a",), (), training, PACE, 300.0)
    assert Choice(("line_a",)) == choose(("line_a",), (), training, Pace(1, 0.0, 20.0), 0.0)


def test_nobody_is_waited_for_while_there_is_no_slot() -> None:
    """What cannot be restarted anyway waits for its turn, not for its training."""
    assert Choice() == choose(("line_a",), ("line_b",), seen(line_a=["fit_model"]), PACE, 0.0)


def test_foreign_words_are_shown_clean() -> None:
    """Names of experiments come from user code, and a terminal obeys control characters."""
    made = choose(("line_a",), (), seen(line_a=["\x1b[2Jx"]), PACE, 0.0)
    assert "�[2Jx" in made.waiting_for["line_a"]


# --- the roll ---


class News:
    def __init__(self) -> None:
        self.good: list[str] = []
        self.bad: list[str] = []
        self.steps: list[tuple[int, str]] = []
        self.progress = Progress(self.good.append, self.bad.append, lambda done, what: self.steps.append((done, what)))


def comes_back(fake: FakeSupervisor, *names: str) -> None:
    for name in names:
        stages = [{"state": "stopping", "ready": False}, {"state": "starting", "generation": 2, "pid": 5000}]
        fake.after_ask[name, "restart"] = [*stages, {"state": "ready", "ready": True}]


def test_a_roll_restarts_every_line_in_order(tmp_path: Path) -> None:
    """Each is asked for when the one before it is ready again, and each is told of."""
    news = News()
    with listening(tmp_path, *map(worker, LINES)) as fake, ControlClient(tmp_path) as client:
        comes_back(fake, *LINES)
        assert roll(client, LINES, PACE, news.progress)
        assert [(name, "restart") for name in LINES] == fake.asked
    assert list(LINES) == [line.split()[0] for line in news.good]
    assert all("ready in " in line and line.endswith("(pid 5000)") for line in news.good)
    assert ([], 3) == (news.bad, news.steps[-1][0])


def test_a_roll_stops_at_the_first_that_does_not_come_back(tmp_path: Path) -> None:
    """Why it did not, which ones were left alone, and those are not asked."""
    news = News()
    with listening(tmp_path, *map(worker, LINES)) as fake, ControlClient(tmp_path) as client:
        comes_back(fake, "line_a", "line_c")
        quarantined = {"state": "quarantined", "ready": False, "generation": 2, "reason": "port 8081 is taken"}
        fake.after_ask["line_b", "restart"] = [quarantined]
        assert not roll(client, LINES, PACE, news.progress)
        assert [("line_a", "restart"), ("line_b", "restart")] == fake.asked
    assert ["line_a"] == [line.split()[0] for line in news.good]
    assert "line_b not ready: quarantined: port 8081 is taken" in news.bad[0]
    assert "the rolling restart stops here; not restarted: line_c" == news.bad[1]


def test_a_line_that_hangs_in_its_start_stops_the_roll_at_its_timeout(tmp_path: Path) -> None:
    """Each line has the time-out for itself."""
    news = News()
    with listening(tmp_path, *map(worker, LINES)) as fake, ControlClient(tmp_path) as client:
        fake.after_ask["line_a", "restart"] = [{"state": "starting", "ready": False, "generation": 2}]
        assert not roll(client, LINES, Pace(1, 300.0, 0.2), news.progress)
        assert [("line_a", "restart")] == fake.asked
    assert news.bad[0].startswith("line_a not ready: still starting after ")


def test_a_roll_waits_for_a_training_and_says_so(tmp_path: Path) -> None:
    """It is restarted when the training is over, long before the limit."""
    news = News()
    busy = worker("line_a", active_experiments=["fit_model"])
    with listening(tmp_path, busy, worker("line_b")) as fake, ControlClient(tmp_path) as client:
        comes_back(fake, "line_a", "line_b")
        over = threading.Timer(0.3, fake.change, ("line_a",), {"active_experiments": []})
        over.start()
        assert roll(client, ["line_a", "line_b"], PACE, news.progress)
        over.join()
        assert [("line_b", "restart"), ("line_a", "restart")] == fake.asked
    assert any("line_a training fit_model (at most 4m 5" in what for _, what in news.steps)


def test_a_training_that_does_not_end_is_cut_off_at_the_limit(tmp_path: Path) -> None:
    """--wait-training is a limit, not a promise to wait for ever."""
    news = News()
    busy = worker("line_a", active_experiments=["fit_model"])
    with listening(tmp_path, busy) as fake, ControlClient(tmp_path) as client:
        comes_back(fake, "line_a")
        assert roll(client, ["line_a"], Pace(1, 0.3, 20.0), news.progress)
    assert [1] == [done for done, _ in news.steps][-1:]


def test_all_means_the_datasites_that_are_wanted_up(tmp_path: Path) -> None:
    """A line that the operator stopped is not started by a rolling restart; one that is named is."""
    everyone = (worker("line_a"), at_rest("line_b"), worker("line_c"))
    with listening(tmp_path, *everyone, dashboard=worker("dashboard")), ControlClient(tmp_path) as client:
        assert ["line_a", "line_c"] == chosen(client, None)
        assert ["line_b"] == chosen(client, ["line_b", "line_b"])


# --- the command ---


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), catch_exceptions=False)


def test_the_command_rolls_and_ends_with_0(plant: Path) -> None:
    """One line a datasite, as they come back."""
    with listening(plant / ".fleet", *map(worker, LINES)) as fake:
        comes_back(fake, *LINES)
        result = run("restart", "--all", "--rolling", "--max-unavailable", "2", "--wait-training", "0")
    assert 0 == result.exit_code
    assert 3 == result.output.count("(pid 5000)")


def test_the_command_ends_with_1_where_it_stopped(plant: Path) -> None:
    """And says what was left alone."""
    with listening(plant / ".fleet", *map(worker, LINES)) as fake:
        fake.after_ask["line_a", "restart"] = [{"state": "backoff", "ready": False, "generation": 2, "reason": "x"}]
        result = run("restart", "--all", "--rolling")
        assert [("line_a", "restart")] == fake.asked
    assert 1 == result.exit_code
    assert "not restarted: line_b, line_c" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--rolling",), 2, "Name the datasites to restart, or use --all. Known: line_a"),
        (("--all", "line_a", "--rolling"), 2, "--all cannot be combined with names"),
        (("--all", "--rolling", "--no-wait"), 2, "--no-wait cannot be combined with --rolling"),
        (("--all", "--rolling", "--max-unavailable", "0"), 2, "max-unavailable"),
        (("line_x", "--rolling"), 4, "no datasite named 'line_x'"),
    ],
)
def test_what_does_not_go_together(plant: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    """Wrong use asks nothing of anybody."""
    with listening(plant / ".fleet", *map(worker, LINES)) as fake:
        result = run("restart", *arguments)
        assert [] == fake.asked
    assert code == result.exit_code
    assert said in result.output


def test_the_help_tells_of_rolling() -> None:
    """Options, and what it does when one does not come back."""
    output = " ".join(run("restart", "-h").output.split())
    for word in (
        "--rolling",
        "--max-unavailable",
        "--wait-training",
        "stops at the first datasite that does not become",
    ):
        assert word in output
