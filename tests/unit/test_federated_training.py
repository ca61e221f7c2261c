"""A whole training in this process, with real torch models: learning, checkpoints, going on, files, and mistakes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console

from central.client import ClientError, DoesNotFit, Interrupted, LocalUpdate, LoginFailed, UnknownData, Unreachable
from central.federated import checkpoint, display, model_file, preparation
from central.federated.checkpoint import BadCheckpoint, Checkpoint
from central.federated.columns import Columns
from central.federated.federation import Event, QuorumMissed
from central.federated.lines import DatasiteLine
from central.federated.model_file import Mistake
from central.federated.participants import Away, Parameters, Refused
from central.federated.plan import Address, PlanRejected, TrainingPlan, parse
from central.federated.rounds import RoundFact
from central.federated.training import FederatedTraining

pytestmark = pytest.mark.process  # it loads PySyft

MODEL = """\
import torch

LOSS = "mse"
CONFIG = {"epochs": 3, "learning_rate": 0.05}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)
"""
TRUTH = torch.tensor([[1.0], [-2.0]])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Here:
    """A line in this process: trains the model on data of its own, as a datasite would. ``dies``: in these rounds its
    first attempt ends in a crash."""

    def __init__(self, name: str, model: torch.nn.Module, rows: int, dies: int = 0) -> None:
        self.name = name
        self.attempts = 0
        self._model = model
        self._dies = dies
        generator = torch.Generator().manual_seed(rows)
        self._x = torch.randn(rows, 2, generator=generator)
        self._y = self._x @ TRUTH

    def answers(self) -> bool:
        return True

    def cancel(self) -> None: ...

    def doing(self) -> str:
        return ""

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> LocalUpdate:
        self.attempts += 1
        if self.attempts == self._dies:
            raise ConnectionError("killed")
        torch.manual_seed(config["seed"])
        model = self._model
        model.load_state_dict(parameters)
        model.train()
        received = [one.detach().clone() for one in model.parameters()]
        step = torch.optim.SGD(model.parameters(), lr=config["learning_rate"])
        for _ in range(config["epochs"]):
            order = torch.randperm(len(self._x))
            for rows in torch.split(order, config["batch_size"]):
                moved = sum(((one - old) ** 2).sum() for one, old in zip(model.parameters(), received, strict=True))
                loss = torch.nn.functional.mse_loss(model(self._x[rows]), self._y[rows])
                step.zero_grad()
                (loss + config["proximal_mu"] / 2 * moved).backward()
                step.step()
        handed = {name: one.detach().clone() for name, one in model.state_dict().items()}
        return LocalUpdate(handed, {"loss": float(loss)}, len(self._x))


class AtOnce:
    """The outside without threads or waiting: work is done when it is begun, and pauses pass at once."""

    def __init__(self) -> None:
        self.clock = 0.0
        self._facts: list[RoundFact] = []

    def now(self) -> float:
        return self.clock

    def begin(self, work: Callable[[], RoundFact]) -> None:
        self._facts.append(work())

    def aside(self, work: Callable[[], None]) -> None: ...

    def wait(self, until: float) -> RoundFact | None:
        if self._facts:
            return self._facts.pop(0)
        self.clock = until
        return None


LINES = {"a": 40, "b": 120, "c": 16}


def address(name: str) -> Address:
    return Address(name, "http://127.0.0.1", 1, "admin@example.com", "secret")


@pytest.fixture
def plan(tmp_path: Path) -> Callable[..., TrainingPlan]:
    """Plans with one model file and output folder."""
    (tmp_path / "model.py").write_text(MODEL)

    def made(rounds: int = 4, output: str = "out", **more: Any) -> TrainingPlan:
        lines = tuple(map(address, LINES))
        return TrainingPlan(str(tmp_path / "model.py"), rounds, str(tmp_path / output), lines, **more)

    return made


class Run:
    """One training; ``said`` is what it printed, ``warned`` what it complained of before."""

    def __init__(self, plan: TrainingPlan, dies: Mapping[str, int] | None = None) -> None:
        self.plan = plan
        self.warned: list[str] = []
        made = model_file.load(Path(plan.model))
        self.training = FederatedTraining(plan, made, self.warned.append)
        self.lines = [Here(name, made.make(), rows, (dies or {}).get(name, 0)) for name, rows in LINES.items()]

    def go(self) -> Checkpoint:
        self.out, self.err = io.StringIO(), io.StringIO()
        return self.training.run(self.lines, AtOnce(), display.Plain(self.plan.rounds, self.out, self.err))


def distance(parameters: Parameters) -> float:
    """The model's mean squared error on data of nobody."""
    room: dict[str, Any] = {}
    exec(MODEL, room)
    model = room["Model"]().eval()
    model.load_state_dict(parameters)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return float(torch.nn.functional.mse_loss(model(x), x @ TRUTH))


def same(one: Parameters, other: Parameters) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


# --- what is learnt ---


def test_lines_learn_together(plan: Callable[..., TrainingPlan]) -> None:
    """After twenty rounds the global model knows, on data that no line has, most of what there was to learn."""
    run = Run(plan(rounds=20))
    before = distance(run.training.kept.parameters)
    assert distance(run.go().parameters) < 0.2 * before


def test_the_same_seed_gives_the_same_bits_and_another_gives_others(plan: Callable[..., TrainingPlan]) -> None:
    """Initial parameters, shuffling and averaging follow from the seed."""
    once, again, other = (Run(plan(output=name, seed=seed)).go() for name, seed in (("1", 5), ("2", 5), ("3", 6)))
    assert same(once.parameters, again.parameters)
    assert not same(once.parameters, other.parameters)


def test_a_crash_that_passes_changes_no_bit(plan: Callable[..., TrainingPlan]) -> None:
    """A line that dies in its second training is asked again; the outcome is the undisturbed one."""
    calm, rough = Run(plan(output="calm")), Run(plan(output="rough"), {"b": 2})
    assert same(calm.go().parameters, rough.go().parameters)
    assert (4, 5) == (calm.lines[1].attempts, rough.lines[1].attempts)
    assert "round 2, b: killed" in rough.err.getvalue()


def test_fedprox_holds_the_lines_back(plan: Callable[..., TrainingPlan]) -> None:
    """With a large proximal term the parameters stay nearer to the initial ones than with FedAvg."""
    moved = []
    for name, how in (("avg", {}), ("prox", {"algorithm": "fedprox", "mu": 10.0})):
        run = Run(plan(rounds=2, output=name, **how))
        begin = run.training.kept.parameters
        end = run.go().parameters
        moved.append(sum(float((end[key] - begin[key]).abs().sum()) for key in begin if "weight" in key))
    assert moved[1] < 0.9 * moved[0]


# --- going on ---


def test_a_resumed_training_has_the_bits_of_one_in_one_go(plan: Callable[..., TrainingPlan]) -> None:
    """Two rounds and two more are four rounds."""
    whole = Run(plan(output="whole")).go()
    Run(plan(rounds=2)).go()
    resumed = Run(plan(resume=True)).go()
    assert [1, 2, 3, 4] == [one["round"] for one in resumed.history]
    assert same(whole.parameters, resumed.parameters)


def test_a_checkpoint_is_kept_after_each_round(plan: Callable[..., TrainingPlan]) -> None:
    """When a later round misses its quorum, the rounds before are on the disk, and can be gone on with."""
    run = Run(plan(deadline=1.0), {"c": 3})
    with pytest.raises(QuorumMissed, match="round 3"):
        run.go()
    assert 2 == checkpoint.load(Path(run.plan.output) / checkpoint.NAME).number
    assert 4 == Run(plan(resume=True)).go().number


def test_other_settings_than_before_are_told(plan: Callable[..., TrainingPlan]) -> None:
    """Going on with another learning rate is allowed, and said."""
    Run(plan(rounds=1)).go()
    run = Run(plan(resume=True, config={"learning_rate": 0.01}))
    assert ["the settings differ from the previous run: learning_rate is 0.01, was 0.05"] == run.warned


def test_a_training_takes_no_folder_of_another(plan: Callable[..., TrainingPlan]) -> None:
    """Without --resume a folder that has a checkpoint is refused, and nothing in it changes."""
    Run(plan(rounds=1)).go()
    before = (Path(plan().output) / checkpoint.NAME).read_bytes()
    with pytest.raises(BadCheckpoint, match="continue it with --resume"):
        Run(plan())
    assert before == (Path(plan().output) / checkpoint.NAME).read_bytes()


def test_there_is_nothing_to_resume_where_nothing_was(plan: Callable[..., TrainingPlan]) -> None:
    """--resume without a checkpoint is a mistake that is told."""
    with pytest.raises(BadCheckpoint, match="start without --resume, or check --output"):
        Run(plan(resume=True))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"no checkpoint at all"])
def test_a_broken_checkpoint_is_refused(plan: Callable[..., TrainingPlan], content: bytes) -> None:
    """A file that is none of ours, or half of one, is named; never is a training begun anew over it."""
    folder = Path(plan().output)
    folder.mkdir()
    (folder / checkpoint.NAME).write_bytes(content)
    with pytest.raises(BadCheckpoint, match="not a valid checkpoint"):
        Run(plan(resume=True))


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    """A pickle that would execute something is refused when it is loaded."""
    torch.save({"format": 1, "round": 1, "parameters": Trap(tmp_path / "sprung")}, tmp_path / "checkpoint.pt")
    with pytest.raises(BadCheckpoint):
        checkpoint.load(tmp_path / "checkpoint.pt")
    assert not (tmp_path / "sprung").exists()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_of_another_model_is_refused(plan: Callable[..., TrainingPlan]) -> None:
    """Parameters that do not fit the model file are told by name, not by a traceback of torch's."""
    Run(plan(rounds=1)).go()
    Path(plan().model).write_text(MODEL.replace("8", "9"))
    with pytest.raises(BadCheckpoint, match=r"the shape of layers.0.weight differs from that in Model"):
        Run(plan(resume=True))


def test_a_checkpoint_of_another_type_is_refused(plan: Callable[..., TrainingPlan]) -> None:
    """Parameters in double precision do not go on in a model of single precision, nor the other way round."""
    Run(plan(rounds=1)).go()
    Path(plan().model).write_text(MODEL.replace("Linear(8, 1))", "Linear(8, 1)).double()"))
    with pytest.raises(BadCheckpoint, match=r"the type of layers.0.weight differs from that in Model"):
        Run(plan(resume=True))


# --- what is left ---


def test_the_folder_holds_parameters_metrics_and_a_plot(plan: Callable[..., TrainingPlan]) -> None:
    """parameters.pt loads into the model; the table has a row for each line in each round; no half file is left."""
    run = Run(plan(rounds=2))
    kept, folder = run.go(), Path(run.plan.output)
    assert ["checkpoint.pt", "metrics.csv", "metrics.json", "parameters.pt", "plot.png"] == sorted(
        path.name for path in folder.iterdir()
    )
    assert same(kept.parameters, torch.load(folder / "parameters.pt", weights_only=True))
    rows = list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))
    assert [(number, line, str(LINES[line])) for number in "12" for line in "abc"] == [
        (row["round"], row["line"], row["samples"]) for row in rows
    ]
    settings = json.loads((folder / "metrics.json").read_text())["settings"]
    assert ("fedavg", 3, ["a", "b", "c"]) == (settings["algorithm"], settings["epochs"], settings["lines"])
    assert "secret" not in (folder / "metrics.json").read_text()


def test_each_round_is_one_line_of_text(plan: Callable[..., TrainingPlan]) -> None:
    """Off a terminal: how far, how many lines, the metrics."""
    run = Run(plan(rounds=2))
    run.go()
    first, second = run.out.getvalue().splitlines()
    assert first.startswith("round 1/2  3 of 3 datasites  loss ")
    assert second.startswith("round 2/2  3 of 3 datasites  loss ")


def test_with_json_each_round_is_one_object(plan: Callable[..., TrainingPlan], tmp_path: Path) -> None:
    """Programs read standard output line by line; the last object says where the outcome is."""
    out = io.StringIO()
    shown = display.Json(1, out, io.StringIO())
    run = Run(plan(rounds=1))
    kept = run.training.run(run.lines, AtOnce(), shown)
    shown.end(kept, tmp_path)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [("round", 1), ("end", None)] == [(one["event"], one.get("round")) for one in told]
    assert {"rounds": 1, "output": str(tmp_path)} == {key: told[1][key] for key in ("rounds", "output")}


def test_the_same_trouble_is_told_once_a_round() -> None:
    """A line that is asked every few seconds for minutes does not fill the screen, nor can it send escape codes there."""
    err = io.StringIO()
    shown = display.Plain(2, io.StringIO(), err)
    for number in (1, 1, 1, 2):
        shown.tell(Event("failed", number, "a", "away\x1b[2J"))
    assert ["round 1, a: away [2J", "round 2, a: away [2J"] == err.getvalue().splitlines()


def test_on_a_terminal_there_is_a_bar_for_the_rounds_and_one_for_each_line() -> None:
    """What a line does stands beside its bar; finished rounds are said above them."""
    screen = Console(file=io.StringIO(), force_terminal=True, width=100, no_color=True, highlight=False, markup=False)
    shown = display.Live(2, 0, ("a", "b"), screen)
    with shown.progress:
        shown.tell(Event("asked", 1, "a"))
        shown.tell(Event("failed", 1, "b", "[bold]away"))
        shown.done({"round": 1, "lines": [{"state": "answered"}], "mean": {"loss": 0.5}, "global": {}, "seconds": 1.0})
    drawn = screen.file.getvalue()  # type: ignore[attr-defined]
    rounds, first, second = (task for task in shown.progress.tasks)
    assert [1, 0, 0] == [rounds.completed, first.completed, second.completed]
    assert ["training", "failed: [bold]away"] == [first.fields["said"], second.fields["said"]]
    assert "round 1/2  1 of 1 datasites  loss 0.5  1.0 s" in drawn
    assert "round 1, b: [bold]away" in drawn


# --- the model file ---


def test_evaluate_is_measured_at_the_centre_after_each_round(plan: Callable[..., TrainingPlan]) -> None:
    """What the file's evaluate returns stands in the history, with the new global parameters in eval mode."""
    asked = plan(rounds=2)
    Path(asked.model).write_text(MODEL + '\ndef evaluate(model):\n    return {"training": float(model.training)}\n')
    assert [{"training": 0.0}] * 2 == [one["global"] for one in Run(asked).go().history]


def test_a_measurement_that_is_no_number_is_null_in_json(plan: Callable[..., TrainingPlan]) -> None:
    """JSON has no NaN: programs that read metrics.json or --json get null, and the table keeps nan."""
    asked = plan(rounds=1)
    Path(asked.model).write_text(
        MODEL + '\ndef evaluate(model):\n    return {"f1": float("nan"), "top": float("inf")}\n'
    )
    run, out = Run(asked), io.StringIO()
    run.training.run(run.lines, AtOnce(), display.Json(1, out, io.StringIO()))

    def strict(text: str) -> Any:
        return json.loads(text, parse_constant=pytest.fail)

    (told,) = strict((Path(asked.output) / "metrics.json").read_text())["rounds"]
    assert {"f1": None, "top": None} == told["global"] == strict(out.getvalue())["global"]
    assert ",nan,inf" in (Path(asked.output) / "metrics.csv").read_text()


MISTAKES = {
    "does not define Model": "import torch\n",
    "Model must be a class derived from torch.nn.Module": "class Model: pass\n",
    "so size needs a default": MODEL.replace("__init__(self)", "__init__(self, size)"),
    "line 3: ": "import torch\n\nclass Model(torch.nn.Module\n",
    "ModuleNotFoundError: No module named 'nowhere' (line 1)": "import nowhere\n",
    "Model() failed: ZeroDivisionError: integer division or modulo by zero (line 10)": MODEL.replace(
        "Linear(8, 1))", "Linear(8 // 0, 1))"
    ),
    "LOSS must be one of mse, l1, cross_entropy, bce_with_logits, not 'hinge'": MODEL.replace('"mse"', '"hinge"'),
    "CONFIG: unknown key epoch;": MODEL.replace('"epochs"', '"epoch"'),
    "CONFIG: epochs must be 1 or more, not 0": MODEL.replace('"epochs": 3', '"epochs": 0'),
    "Model has no parameters to train": "import torch\n\nclass Model(torch.nn.Module):\n    pass\n",
    "evaluate must be a function": MODEL + "\nevaluate = 3\n",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_in_the_model_file_is_told_in_words(words: str, tmp_path: Path) -> None:
    """File and, where there is one, line; never a traceback."""
    (tmp_path / "model.py").write_text(MISTAKES[words])
    with pytest.raises(Mistake) as mistake:
        model_file.load(tmp_path / "model.py")
    assert words in str(mistake.value)
    assert "model.py" in str(mistake.value)


def test_a_failing_evaluate_is_a_mistake_of_the_file(plan: Callable[..., TrainingPlan]) -> None:
    """The training ends with its line, and what was trained before it is kept."""
    asked = plan()
    Path(asked.model).write_text(MODEL + "\ndef evaluate(model):\n    raise OSError('no test data')\n")
    with pytest.raises(Mistake, match=r"evaluate\(model\) failed: OSError: no test data"):
        Run(asked).go()


# --- the plan ---


def test_a_plan_is_read_as_it_was_written() -> None:
    """What the command line writes on standard input is what the training gets."""
    line = {"name": "a", "url": "http://127.0.0.1", "port": 1, "email": "admin@example.com", "password": "secret"}
    written = {"model": "m.py", "rounds": 3, "output": "out", "lines": [line], "algorithm": "fedprox", "mu": 0.1}
    read = parse(json.dumps(written).encode())
    assert (address("a"), 3, 0.1) == (read.lines[0], read.rounds, read.training_config({}).proximal_mu)
    assert "secret" not in repr(read)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"lines": [], "model": "m", "rounds": 1, "output": "o"}'])
def test_what_is_no_plan_is_refused(raw: bytes) -> None:
    """Started by hand, without a plan, it says who writes one."""
    with pytest.raises(PlanRejected):
        parse(raw)


def test_the_command_line_goes_before_the_model_file(plan: Callable[..., TrainingPlan]) -> None:
    """CONFIG holds the model's own defaults; other keys of it are handed on to the lines."""
    config = plan(config={"epochs": 7}).training_config({"epochs": 2, "batch_size": 5, "momentum": 0.9})
    told = config.told(1, "a")
    assert (7, 5, 0.9, 0.0) == (told["epochs"], told["batch_size"], told["momentum"], told["proximal_mu"])


def test_configs_seed_counts_unless_the_command_line_gives_one(plan: Callable[..., TrainingPlan]) -> None:
    """It stands in the settings, and the initial parameters follow from it."""
    asked = plan(output="5")
    Path(asked.model).write_text(MODEL.replace('"epochs": 3', '"epochs": 3, "seed": 5'))
    assert (5, 6) == (Run(asked).training.config.seed, Run(plan(output="6", seed=6)).training.config.seed)
    of_config = Run(asked).training.kept.parameters
    Path(asked.model).write_text(MODEL)
    assert same(of_config, Run(plan(output="again", seed=5)).training.kept.parameters)
    assert not same(of_config, Run(plan(output="other")).training.kept.parameters)
    Path(asked.model).write_text(MODEL.replace('"epochs": 3', '"epochs": 3, "seed": -1'))
    with pytest.raises(ValueError, match="CONFIG: seed must be 0 or more, not -1"):
        Run(plan(output="drawn"))


def test_a_proximal_term_that_is_not_used_is_told(plan: Callable[..., TrainingPlan]) -> None:
    """Under fedavg CONFIG's proximal_mu changes nothing, which is said; under fedprox it counts, also when it is 0."""
    asked = plan(output="avg")
    Path(asked.model).write_text(MODEL.replace('"epochs": 3', '"epochs": 3, "proximal_mu": 0.5'))
    assert ["CONFIG's proximal_mu is not used by fedavg; --algorithm fedprox uses it"] == Run(asked).warned
    run = Run(plan(output="prox", algorithm="fedprox"))
    assert ([], 0.5) == (run.warned, run.training.config.proximal_mu)
    assert 0.0 == plan(algorithm="fedprox").training_config({"proximal_mu": 0.0}).proximal_mu
    assert 0.01 == plan(algorithm="fedprox").training_config({}).proximal_mu


def test_a_setting_that_no_line_can_train_with_is_told_before_any_line_is_asked(
    plan: Callable[..., TrainingPlan],
) -> None:
    """A learning rate of 0 is an error in the settings, not one of each line."""
    with pytest.raises(ValueError, match="learning_rate must be above 0"):
        Run(plan(config={"learning_rate": 0.0}))


# --- a line over the wire ---


class Site:
    """What ``connect`` gives, as far as a line needs it."""

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        self.published = datasets
        self.trained: list[str] = []

    def datasets(self) -> Mapping[str, Any]:
        return self.published

    def mock(self, data: str) -> Mapping[str, Any]:
        return dict.fromkeys(self.published.get(data, ()), torch.zeros(2, 1))

    def check(self, *_: Any, **__: Any) -> None: ...

    def upload_model(self, model: torch.nn.Module, name: str, description: str, *, loss: str) -> str:
        return f"{name} {loss}"

    def execute_federated_training(
        self, model_id: str, config: Mapping[str, Any], data: str, *, parameters: Parameters
    ) -> Asked:
        self.trained.append(data)
        return Asked(model_id)


class Asked:
    """A training that was asked for."""

    def __init__(self, update: Any, error: Exception | None = None) -> None:
        self.update = update
        self.error = error
        self.cancelled = 0

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.update

    def cancel(self) -> None:
        self.cancelled += 1
        if self.cancelled > 1:
            raise ClientError("it has ended")

    def told(self) -> str:
        return "running"


def line(site: Any, data: str = "", now: Callable[[], float] = lambda: 0.0) -> DatasiteLine:
    model = torch.nn.Linear(1, 1)
    return DatasiteLine(address("a"), model, "mse", data, connecting=site, probing=lambda *_: True, now=now)


def test_a_line_trains_on_its_only_dataset_unless_one_is_named() -> None:
    """--data is needed only where there is a choice."""
    site = Site({"vibration": ("x", "y")})
    told: object = line(lambda *_, **__: site).train({}, {}, 1.0)  # what the site answers is handed on
    assert "Linear mse" == told
    line(lambda *_, **__: site, "heat").train({}, {}, 1.0)
    assert ["vibration", "heat"] == site.trained


def test_a_line_with_several_datasets_wants_one_named() -> None:
    """It says which there are, and is not asked again."""
    with pytest.raises(Refused, match="name one with --data: heat, vibration"):
        line(lambda *_, **__: Site({"heat": (), "vibration": ()})).train({}, {}, 1.0)


def test_a_dataset_that_is_not_there_may_still_come_for_a_while() -> None:
    """A line that has just started publishes its files within seconds: at first that is a failure that may pass."""
    clock = [0.0]
    asked = line(lambda *_, **__: Site({}), now=lambda: clock[0])
    with pytest.raises(UnknownData):
        asked.train({}, {}, 1.0)
    clock[0] = 31.0
    with pytest.raises(Refused, match="it publishes no dataset"):
        asked.train({}, {}, 1.0)


@pytest.mark.parametrize(("error", "told"), [(Unreachable("away"), Away), (LoginFailed("no"), Refused)])
def test_what_may_pass_is_told_from_what_does_not(error: Exception, told: type[Exception]) -> None:
    """A line that is away is probed; one that does not know the login is not."""

    def connecting(*_: Any, **__: Any) -> Any:
        raise error

    with pytest.raises(told):
        line(connecting).train({}, {}, 1.0)


def test_nobody_is_patient_twice_with_a_datasite_that_is_down() -> None:
    """After it did not answer it is probed first; the client, which waits long, is used again once it answers."""
    probes, connections = [], []

    def connecting(*_: Any, **__: Any) -> Any:
        connections.append(1)
        raise Unreachable("tried for 15 s")

    up = iter([True, False])
    asked = DatasiteLine(
        address("a"),
        torch.nn.Linear(1, 1),
        "mse",
        "",
        connecting=connecting,
        probing=lambda *told: bool(probes.append(told)) or next(up),  # type: ignore[func-returns-value]
    )
    for why in ("tried for 15 s", "it does not answer"):
        with pytest.raises(Away, match=why):
            asked.train({}, {}, 1.0)
    assert ([("http://127.0.0.1", 1, None)] * 2, [1]) == (probes, connections)


class Holding(Site):
    """A site whose trainings run until they are cancelled; it hands out what it was asked for."""

    def __init__(self, *asked: Asked) -> None:
        super().__init__({"wear": ("data",)})
        self.coming = iter(asked)

    def execute_federated_training(self, *_: Any, **__: Any) -> Asked:
        return next(self.coming)


def test_what_is_under_way_is_cancelled_and_nothing_else_begins() -> None:
    """At the end of a federated training each datasite takes back what it was asked for, and is asked for no more."""
    asked = Asked(None, Interrupted("cancelled"))
    taking_part = line(lambda *_, **__: Holding(asked))
    taking_part.cancel()
    with pytest.raises(Interrupted):
        taking_part.train({}, {}, 1.0)
    assert "running" == taking_part.doing()
    taking_part.cancel(for_good=True)
    assert 1 == asked.cancelled
    taking_part.cancel(for_good=True)  # a datasite that refuses, because it has ended, is no error
    with pytest.raises(Refused, match="the training is over"):
        taking_part.train({}, {}, 1.0)


def test_a_datasite_does_not_go_on_with_what_it_was_asked_before() -> None:
    """One that did not answer for a while may still be at work: that is cancelled before the next begins."""
    before, after = Asked(None, Unreachable("away")), Asked("update")
    taking_part = line(lambda *_, **__: Holding(before, after))
    with pytest.raises(Away):
        taking_part.train({}, {}, 1.0)
    told: object = taking_part.train({}, {}, 1.0)
    assert ("update", 1, 0) == (told, before.cancelled, after.cancelled)
    taking_part.cancel()
    assert ("", 0) == (taking_part.doing(), after.cancelled)


# --- columns ---

TABLE = {"wear": ("data",)}


class Tables(Site):
    """A site with one table; ``trained`` holds the configurations it was given."""

    def __init__(self, *columns: str) -> None:
        super().__init__(TABLE)
        self.columns = columns
        self.configs: list[Mapping[str, Any]] = []

    def mock(self, data: str) -> Mapping[str, Any]:
        return {"data": pd.DataFrame([[0.5] * len(self.columns)] * 2, columns=list(self.columns))}

    def execute_federated_training(
        self, model_id: str, config: Mapping[str, Any], data: str, *, parameters: Parameters
    ) -> Asked:
        self.configs.append(config)
        return Asked(model_id)


class Alongside:
    """The threads of a preparation, one after another, on a clock that nobody waits for."""

    def __init__(self) -> None:
        self.clock = 0.0

    def now(self) -> float:
        return self.clock

    def pause(self, seconds: float) -> None:
        self.clock += seconds

    def together(self, works: Sequence[Callable[[], Any]]) -> list[Any]:
        return [self._settled(work) for work in works]

    def _settled(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - as the threads do
            return error


def lines_of(sites: Mapping[str, Any], said: list[str]) -> list[DatasiteLine]:
    def connecting(site: Any) -> Callable[..., Any]:
        def connect(*_: Any, **__: Any) -> Any:
            if isinstance(site, Exception):
                raise site
            return site

        return connect

    model = torch.nn.Linear(2, 1)
    return [
        DatasiteLine(
            address(name),
            model,
            "mse",
            "",
            tell=said.append,
            connecting=connecting(site),
            probing=lambda *_: True,
            now=lambda: 0.0,
        )
        for name, site in sites.items()
    ]


def test_every_datasite_takes_the_columns_of_the_first_by_name(plan: Callable[..., TrainingPlan]) -> None:
    """The list is fixed before the first round, stands in the settings, and reaches each datasite; what is extra is
    told."""
    said: list[str] = []
    lines = lines_of({"a": Tables("speed", "load", "wear"), "b": Tables("wear", "heat", "load", "speed")}, said)
    run = Run(plan())
    prepared = preparation.prepare(lines, run.training.config.more, Alongside(), 60.0)
    run.training.agree(prepared.columns)
    assert ["b: its column 'heat' is not used"] == said
    assert {} == prepared.problems
    told = run.training.config.told(1, "b")
    assert (["speed", "load"], "wear") == (told["features"], told["target"])


def test_a_datasite_that_lacks_a_column_is_refused_by_name() -> None:
    """With the column, and with what it has instead. It trains as soon as its owner has corrected the data."""
    lacking = Tables("speed", "wear")
    first, second = lines_of({"a": Tables("speed", "load", "wear"), "b": lacking}, [])
    prepared = preparation.prepare([first, second], {}, Alongside(), 60.0)
    assert {"b": "its data has no column 'load'; it has 'speed', 'wear'"} == prepared.problems
    prepared.require(1, 2)
    with pytest.raises(Mistake, match="b: its data has no column 'load'"):
        prepared.require(2, 2)
    assert prepared.columns is not None
    config = prepared.columns.config()
    with pytest.raises(Refused, match="no column 'load'"):
        second.train({}, config, 1.0)
    lacking.columns = ("wear", "load", "speed")
    second.train({}, config, 1.0)
    assert [config] == lacking.configs


def test_a_target_that_no_datasite_has_is_told_before_the_first_round() -> None:
    """A typing mistake in CONFIG is told for each datasite, with the columns there are."""
    lines = lines_of({"a": Tables("speed", "wear"), "b": Tables("wear", "speed")}, [])
    prepared = preparation.prepare(lines, {"target": "weer"}, Alongside(), 60.0)
    with pytest.raises(Mistake, match="a: its data has no column 'weer'; it has 'speed', 'wear'"):
        prepared.require(2, 2)


def test_a_model_that_does_not_fit_is_told_before_the_first_round() -> None:
    """Each datasite whose mock shows that it cannot train is named, with what is wrong."""

    class Unfit(Tables):
        def check(self, *_: Any, **__: Any) -> None:
            raise DoesNotFit("mat1 and mat2 shapes cannot be multiplied")

    lines = lines_of({"a": Tables("speed", "wear"), "b": Unfit("speed", "wear")}, [])
    prepared = preparation.prepare(lines, {}, Alongside(), 60.0)
    assert {"b": "mat1 and mat2 shapes cannot be multiplied"} == prepared.problems


def test_a_preparation_waits_for_the_first_datasite_that_answers() -> None:
    """A fleet that has just started publishes within seconds; one that never answers ends the training, with reasons."""
    site, around = Tables("speed", "wear"), Alongside()
    site.published = {}
    (line,) = lines_of({"a": site}, [])

    class Publishing(Alongside):
        def pause(self, seconds: float) -> None:
            super().pause(seconds)
            site.published = TABLE if self.clock > 5 else {}

    assert None is not preparation.prepare([line], {}, Publishing(), 60.0).columns
    away = lines_of({"a": Unreachable("connection refused")}, [])
    with pytest.raises(preparation.NobodyAnswers, match=r"a \(connection refused\)"):
        preparation.prepare(away, {}, around, 60.0)
    assert around.clock <= 60.0


def test_a_resumed_training_keeps_its_columns(plan: Callable[..., TrainingPlan]) -> None:
    """They stand in the checkpoint, so a datasite that is first now changes nothing."""
    run = Run(plan(rounds=1))
    run.training.agree(Columns("wear", ("speed", "load")))
    run.go()
    resumed = Run(plan(resume=True))
    assert [] == resumed.warned
    told = resumed.training.config.told(2, "a")
    assert (["speed", "load"], "wear") == (told["features"], told["target"])
