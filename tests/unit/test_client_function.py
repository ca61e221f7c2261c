"""The training function that an owner approves: what its text does, and what of it the client takes back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from central.client.__main__ import _show
from central.client.errors import DoesNotFit, TrainingFailed
from central.client.function import FORMS, LOSSES, TrainingFunction, metrics_of, training_function
from central.client.owner import Waiting
from central.client.source import maker
from central.client.training import DEFAULTS, completed, update_of
from central.client.trial import tried
from datasite_worker.training_bounds import is_training

pytestmark = pytest.mark.process

TRUTH = torch.tensor([[1.0], [-2.0], [0.5]])


def linear(out: int = 1) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, out))


def function(loss: str, out: int = 1, assets: tuple[str, ...] = ("x", "y")) -> TrainingFunction:
    return training_function("wear", maker(linear(out)), loss, "vibration", assets)


def run(made: TrainingFunction, model: torch.nn.Module, *data: Any, **config: Any) -> dict[str, Any]:
    """What the text hands back, run as a datasite runs it: in a namespace that holds nothing."""
    room: dict[str, Any] = {}
    exec(made.source, room)
    handed: dict[str, Any] = room[made.name](dict(model.state_dict()), completed(config), *data)
    return handed


def rows(count: int = 65) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(count, 3)
    return x, x @ TRUTH


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_every_loss_is_learned(loss: str) -> None:
    """The loss falls, and what comes back is what the client agreed on."""
    x, y = rows()
    out = 2 if loss == "cross_entropy" else 1
    target = y if loss in ("mse", "l1") else (y > 0).long()
    handed = run(function(loss, out), linear(out), x.numpy(), target.numpy(), epochs=40, learning_rate=0.1)
    update = update_of(handed, linear(out).state_dict(), metrics_of(loss), "here", DEFAULTS)
    assert update.metrics["loss"] < update.metrics["loss_before"] / 2
    assert 65 == update.samples
    if "accuracy" in update.metrics:
        assert update.metrics["accuracy"] > 0.9


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_every_optimizer_trains(optimizer: str) -> None:
    """By its name in the configuration."""
    x, y = rows()
    handed = run(function("mse"), linear(), x, y, epochs=30, learning_rate=0.05, optimizer=optimizer)
    assert handed["metrics"]["loss"] < handed["metrics"]["loss_before"]


def test_a_proximal_term_holds_the_model_back() -> None:
    """FedProx: the larger mu, the nearer the parameters stay to those received."""
    x, y = rows()

    def moved(mu: float) -> float:
        handed = run(function("mse"), linear(), x, y, epochs=20, learning_rate=0.02, proximal_mu=mu, seed=1)
        return float((handed["parameters"]["0.weight"] - linear().state_dict()["0.weight"]).norm())

    assert moved(0.0) > moved(1.0) > moved(10.0) > 0.0


def test_one_step_of_plain_descent_is_as_computed_by_hand() -> None:
    """With one batch of all rows: w - lr * gradient, nothing else."""
    x, y = rows(8)
    model = linear()
    torch.nn.functional.mse_loss(model(x), y).backward()
    weight = model[0].weight  # type: ignore[index]
    expected = weight.detach() - 0.1 * weight.grad
    handed = run(function("mse"), linear(), x, y, epochs=1, batch_size=8, learning_rate=0.1)
    assert torch.allclose(expected, handed["parameters"]["0.weight"], atol=1e-6)


@pytest.mark.parametrize("shape", ["table", "array", "named"])
def test_one_asset_holds_features_and_target(shape: str) -> None:
    """A table by its columns, an array by its last column."""
    x, y = rows()
    table = pd.DataFrame({"a": x[:, 0], "wear": y[:, 0], "b": x[:, 1], "c": x[:, 2]})
    given: dict[str, Any] = {
        "table": (table[["a", "b", "c", "wear"]], {}),
        "array": (np.concatenate([x, y], axis=1), {}),
        "named": (table, {"target": "wear", "features": ["a", "b", "c"]}),
    }
    data, config = given[shape]
    handed = run(function("mse", assets=("table",)), linear(), data, epochs=40, learning_rate=0.1, **config)
    assert handed["metrics"]["loss"] < 0.01


def test_the_hash_is_of_model_loss_and_data() -> None:
    """Another model, loss or dataset is another function to approve; a round is not."""
    hashes = {
        function("mse").hash,
        function("l1").hash,
        function("mse", 2).hash,
        training_function("wear", maker(linear()), "mse", "temperature", ("x", "y")).hash,
        training_function("tear", maker(linear()), "mse", "vibration", ("x", "y")).hash,
    }
    assert 5 == len(hashes)
    assert function("mse").hash == function("mse").hash


@pytest.mark.parametrize(
    ("loss", "x", "y", "why"),
    [
        ("mse", np.zeros((0, 3)), np.zeros((0, 1)), "no rows"),
        ("cross_entropy", np.zeros((0, 3)), np.zeros(0, dtype=int), "no rows"),
        ("cross_entropy", np.zeros((5, 3)), np.array([0, 1, 77, 0, 1]), "labels that are no classes of the model"),
        ("cross_entropy", np.zeros((5, 3)), np.array([0, 1, -1, 0, 1]), "labels that are no classes of the model"),
    ],
    ids=["no rows", "no rows to classify", "no such class", "negative"],
)
def test_a_mock_that_cannot_be_trained_on_fails_nothing(loss: str, x: Any, y: Any, why: str) -> None:
    """PySyft runs the function on the mock too; an owner's mock is empty, or drawn at random. Nothing comes of it."""
    model = linear(2)
    handed = run(function(loss, 2), model, x, y)
    assert ({"problem", "column"}, 0) == (set(handed["metrics"]), handed["samples"])
    with pytest.raises(TrainingFailed, match=f"here has nothing to train on: {why}"):
        update_of(handed, model.state_dict(), metrics_of(loss), "here", DEFAULTS)


A, B, WEAR = [0.5, 1.0, 1.5], [1.0, 2.0, 3.0], [0.0, 1.0, 0.0]
PROBLEMS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "missing feature": ({"a": A, "wear": WEAR}, {"features": ["a", "load"]}, "has no column 'load'"),
    "missing target": ({"a": A, "b": B}, {"target": "wear"}, "has no column 'wear'"),
    "empty file": ({"a": [], "b": [], "wear": []}, {}, "has nothing to train on: no rows"),
    "text that was named": ({"a": A, "b": list("xyz"), "wear": WEAR}, {"features": ["a", "b"]}, "not numbers 'b'"),
    "text": ({"a": A, "b": list("xyz"), "wear": WEAR}, {}, "has a column that is not numbers"),
    "text as target": ({"a": A, "b": B, "wear": list("xyz")}, {"target": "wear"}, "not numbers 'wear'"),
    "missing value": ({"a": [0.5, None, 1.5], "b": B, "wear": WEAR}, {}, "has missing values, or values that are not"),
    "missing target value": ({"a": A, "b": B, "wear": [0.0, float("nan"), 1.0]}, {}, "has missing values, or values"),
    "infinite": ({"a": [0.5, float("inf"), 1.5], "b": B, "wear": WEAR}, {}, "has missing values, or values that are"),
    "loss": ({"a": [1e30] * 3, "b": B, "wear": WEAR}, {}, "gets a loss that is not finite from the parameters that w"),
}


@pytest.mark.parametrize("case", PROBLEMS)
def test_what_cannot_be_trained_on_is_named_without_a_value(case: str) -> None:
    """By its number, and by the place of a column in the configuration; nothing else comes back."""
    table, config, why = PROBLEMS[case]
    made = training_function("wear", maker(two()), "mse", "vibration", ("table",))
    handed = run(made, two(), pd.DataFrame(table), **config)
    assert (["problem", "column"], 0) == (list(handed["metrics"]), handed["samples"])
    assert all(torch.equal(one, two().state_dict()[key]) for key, one in handed["parameters"].items())
    with pytest.raises(TrainingFailed, match=rf"^here (.*{why}|{why})"):
        update_of(handed, two().state_dict(), metrics_of("mse"), "here", completed(config))


def two() -> torch.nn.Module:
    """A model of two features."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("a", "wear"),
    [
        ([1, 2, 3], [True, False, True]),
        (pd.array([1, 2, 3], dtype="Int64"), pd.array([True, False, True], dtype="boolean")),
        (pd.array([1, 2, 3], dtype="Float32"), [1, 0, 1]),
    ],
)
def test_whole_numbers_and_truth_values_are_numbers(a: Any, wear: Any) -> None:
    """In whichever of their types a table has them."""
    made = training_function("wear", maker(two()), "bce_with_logits", "vibration", ("table",))
    handed = run(made, two(), pd.DataFrame({"a": a, "b": B, "wear": wear}))
    assert 3 == update_of(handed, two().state_dict(), metrics_of("bce_with_logits"), "here", DEFAULTS).samples


def mock_of(**columns: str) -> dict[str, Any]:
    """A mock with these columns, of these types, and a single row."""
    return {"data": pd.DataFrame({name: pd.Series([7], dtype=kind) for name, kind in columns.items()})}


FITS: dict[str, tuple[str, torch.nn.Module, dict[str, Any], dict[str, Any], str]] = {
    "fits": ("mse", two(), mock_of(a="float", b="int", wear="float"), {}, ""),
    "a class": ("cross_entropy", linear(2), mock_of(a="float", b="int", c="bool", wear="int"), {}, ""),
    "one row": (
        "mse",
        torch.nn.Sequential(torch.nn.BatchNorm1d(2)),
        {"x": np.ones((1, 2)), "y": np.ones((1, 2))},
        {},
        "",
    ),
    "text": ("mse", two(), mock_of(a="float", b="str", wear="float"), {"features": ["a", "b"]}, "not numbers 'b'"),
    "missing": ("mse", two(), mock_of(a="float", b="int", wear="float"), {"target": "w"}, "the data has no column 'w'"),
    "width": (
        "mse",
        two(),
        mock_of(a="float", wear="float"),
        {},
        "cannot be trained on 1 feature ('a') and the target 'wear': mat1 and mat2 shapes cannot be multiplied",
    ),
    "array": ("mse", two(), {"data": np.ones((9, 5))}, {}, "on data of shape (rows, 5): mat1 and mat2 shapes"),
    "loss": ("mse", linear(2), {"x": np.ones((9, 3)), "y": np.ones((9, 3))}, {}, "is invalid for input of size 12"),
    "batch": (
        "mse",
        torch.nn.Sequential(torch.nn.BatchNorm1d(2)),
        {"x": np.ones((9, 2)), "y": np.ones((9, 2))},
        {"batch_size": 1},
        "Expected more than 1 value per channel when training",
    ),
}


@pytest.mark.parametrize("case", FITS)
def test_a_training_is_tried_on_the_form_of_the_mock(case: str) -> None:
    """What columns, types and shapes show to be wrong is told in one sentence; the mock's own values tell nothing."""
    loss, model, mock, config, why = FITS[case]
    assets = ("table",) if "data" in mock else ("x", "y")
    made = training_function("wear", maker(model), loss, "vibration", assets)
    before = torch.random.get_rng_state()
    try:
        tried(made, model.state_dict(), completed(config), mock)
        told = ""
    except DoesNotFit as error:
        told = str(error)
    assert why in told
    assert bool(why) == bool(told)
    assert torch.equal(before, torch.random.get_rng_state())


def test_names_cannot_break_out_of_the_text() -> None:
    """A dataset's or model's name is the business of others: it may be anything."""
    made = training_function('w"""\nimport os', maker(linear()), "mse", 'v"""\\', ("x", "y"))
    x, y = rows()
    assert 65 == run(made, linear(), x, y)["samples"]
    assert made.name.isidentifier()


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"epoch": 1}, "unknown key epoch; known: epochs, batch_size"),
        ({"epochs": 0}, "epochs must be 1 or more, not 0"),
        ({"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
        ({"batch_size": "many"}, "batch_size must be a whole number, not 'many'"),
        ({"learning_rate": 0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number, not nan"),
        ({"optimizer": "lbfgs"}, "optimizer must be one of sgd, adam, adamw"),
        ({"proximal_mu": -1}, "proximal_mu must be 0 or more"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(config: dict[str, Any], why: str) -> None:
    """Before anything is sent."""
    with pytest.raises(ValueError, match=why):
        completed(config)


def test_a_configuration_is_completed() -> None:
    """Whatever is left out has its default, in plain types."""
    made = completed({"epochs": 3, "features": ("a",)})
    assert set(DEFAULTS) == set(made)
    assert (3, 32, ["a"], "") == (made["epochs"], made["batch_size"], made["features"], made["target"])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"rows": [1.0]}, "something other than parameters, metrics and samples"),
        ({"parameters": {"0.weight": torch.zeros(1, 3)}}, "parameters of another model"),
        ({"parameters": {"0.weight": torch.zeros(9, 3), "0.bias": torch.zeros(1)}}, "parameters of another model"),
        ({"parameters": {"0.weight": "text", "0.bias": torch.zeros(1)}}, "parameters of another model"),
        ({"metrics": {"loss": 1.0, "loss_before": 1.0, "mae": 1.0, "row": 7.0}}, "metrics that were not agreed on"),
        ({"samples": 0}, "nothing to train on"),
        ({"metrics": {"loss": "1", "loss_before": 1.0, "mae": 1.0}}, "metrics that were not agreed on"),
        ({"metrics": {"loss": float("nan"), "loss_before": 1.0, "mae": 1.0}}, "diverged"),
        ({"metrics": {"problem": 5.0, "column": 0.0}, "samples": 0}, "here has missing values"),
        ({"metrics": {"problem": 77, "column": math.nan}, "samples": 0}, "here has nothing to train on"),
        ({"metrics": "row 7", "samples": 0}, "here has nothing to train on"),
        ({"samples": -1}, "metrics that were not agreed on"),
        ({"parameters": {"0.weight": torch.full((1, 3), torch.nan), "0.bias": torch.zeros(1)}}, "lower learning_rate"),
    ],
)
def test_nothing_else_is_taken_back(change: dict[str, Any], why: str) -> None:
    """What a site hands back is the model's own parameters, the agreed metrics and a number of rows, or is refused."""
    handed = {
        "parameters": dict(linear().state_dict()),
        "metrics": {"loss": 1.0, "loss_before": 2.0, "mae": 1.0},
        "samples": 3,
    }
    assert 3 == update_of(handed, linear().state_dict(), metrics_of("mse"), "here", DEFAULTS).samples
    with pytest.raises(TrainingFailed, match=why):
        update_of({**handed, **change}, linear().state_dict(), metrics_of("mse"), "here", DEFAULTS)


def test_an_owner_sees_what_code_reads_and_whether_bounds_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Each asset by name; code that is not in the form of a training says so."""
    training = Waiting("1", "train", "ann@x.org", "sha256:1", "", ("wear/x", "wear/y"))
    _show([training, Waiting("2", "mean", "bob@x.org", "sha256:2", "", (), training=False)], with_source=False)
    assert (
        "1  train  ann@x.org\n  sha256:1\n  reads wear/x, wear/y\n"
        "2  mean  bob@x.org\n  sha256:2\n  reads no dataset\n"
        "  is not in the form of a training: training_bounds do not hold for it\n"
    ) == capsys.readouterr().out


def test_the_forms_of_a_training_are_those_that_a_datasite_knows() -> None:
    """Centre and datasite do not import each other."""
    assert [True, True] == [is_training(dict.fromkeys(form)) for form in FORMS]
