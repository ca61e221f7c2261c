"""The owner's bounds for trainings: what may begin, what may leave, and the attack that they are for."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from central.client.function import training_function
from central.client.source import maker
from central.client.training import DEFAULTS, completed
from datasite_worker import training_bounds as bounds_of
from datasite_worker.training_bounds import Unbounded, bounded, filled, noise_of, refusal, steps_of
from fleet_common.contract import LARGEST_STATUS, LiveSettings, TrainingBounds
from fleet_common.untrusted import decoded
from tests import reconstruction
from tests.reconstruction import ATTACKS, ONE_STEP, TWO_STEPS, Attack

pytestmark = pytest.mark.process

DEFAULT = TrainingBounds()
OPEN = TrainingBounds(clip=0.0, noise=0.0, exact_metrics=True)
PLAIN = completed({})


@pytest.mark.parametrize(
    ("config", "rows", "why"),
    [
        ({}, 50, ""),
        ({}, 49, "it has fewer rows than the 50 that a training needs (min_samples)"),
        ({"batch_size": 50}, 50, "a single step over all rows shows sums over rows; use a smaller batch_size or more epochs"),
        ({"batch_size": 50, "epochs": 2}, 50, ""),
        ({"batch_size": 49}, 50, "a single step over all rows shows sums over rows; use a smaller batch_size or more epochs"),
        ({"batch_size": 3}, 50, "batch_size must be 4 to 1024, not 3"),
        ({"learning_rate": 1e5}, 50, "learning_rate must be 1e-06 to 1, not 100000"),
        ({"learning_rate": math.nan}, 50, "learning_rate must be 1e-06 to 1, not nan"),
        ({"learning_rate": True}, 50, "learning_rate must be 1e-06 to 1, not 1"),
        ({"learning_rate": "1"}, 50, "learning_rate must be 1e-06 to 1, not no number"),
        ({"learning_rate": None}, 50, "learning_rate must be 1e-06 to 1, not nothing"),
        ({"epochs": 1001}, 50, "epochs must be 1 to 1000, not 1001"),
        ({"epochs": 1000}, 10**6, "steps must be 2 to 1e+06, not 3.125e+07"),
        ({"momentum": 1e5}, 50, "momentum must be 0 to 0.999, not 100000"),
        ({"weight_decay": -1.0}, 50, "weight_decay must be 0 to 1, not -1"),
        ({"proximal_mu": 101.0}, 50, "proximal_mu must be 0 to 100, not 101"),
    ],
)  # fmt: skip
def test_what_may_not_begin_is_told_with_what_may(config: dict[str, Any], rows: int, why: str) -> None:
    """The default configuration of a client may, on fifty rows."""
    assert why == refusal(DEFAULT, PLAIN | config, rows)


def test_a_configuration_that_cannot_be_read_is_refused() -> None:
    """Whatever the approved text would make of it."""
    assert "its configuration is not a mapping" == refusal(DEFAULT, None, 50)
    assert "batch_size must be 4 to 1024, not nothing" == refusal(DEFAULT, {}, 50)


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs"), [(1, 4, 1), (5, 4, 3), (6, 4, 1), (8, 4, 2), (3, 8, 2), (9, 8, 1), (1, 1, 2)]
)
def test_steps_are_counted_as_the_training_function_makes_them(rows: int, batch_size: int, epochs: int) -> None:
    """A last batch of one row is passed over there."""
    batches = [len(one) for one in torch.arange(rows).split(batch_size)]
    made = [size for size in batches if not size == 1 < min(rows, batch_size)]
    assert epochs * len(made) == steps_of(rows, batch_size, epochs)


def test_the_owner_may_fix_the_columns() -> None:
    """They are filled in where the scientist names none; others are refused; the order of features is the scientist's."""
    fixed = TrainingBounds(target="wear", features=("load", "heat"))
    assert PLAIN | {"target": "wear", "features": ["load", "heat"]} == filled(fixed, PLAIN)
    assert "" == refusal(fixed, filled(fixed, PLAIN), 50)
    assert "" == refusal(fixed, PLAIN | {"target": "wear", "features": ["heat", "load"]}, 50)
    assert "target must be wear" == refusal(fixed, PLAIN | {"target": "name"}, 50)
    assert "features must be load, heat" == refusal(fixed, PLAIN | {"features": ["load"]}, 50)
    assert PLAIN == filled(DEFAULT, PLAIN)
    assert None is filled(fixed, None)


RECEIVED = {"weight": torch.zeros(2, 2), "norm.running_mean": torch.zeros(2), "count": torch.tensor(0)}


def result(**changes: Any) -> dict[str, Any]:
    parameters = {
        "weight": torch.full((2, 2), 3.0),
        "norm.running_mean": torch.tensor([1e6, 1.0]),
        "count": torch.tensor(7),
    }
    return {"parameters": parameters, "metrics": {"loss": 0.123456}, "samples": 60} | changes


def left(found: dict[str, Any], bounds: TrainingBounds, inputs: object = 0) -> dict[str, Any]:
    return bounded(found, RECEIVED, bounds, 60, noise_of(b"key", inputs))


def test_a_large_update_is_clipped() -> None:
    """To the norm that the owner allows, all parameters by the same factor; running statistics and counts are left."""
    parameters = left(result(), replace(OPEN, clip=1.5))["parameters"]
    assert torch.equal(torch.full((2, 2), 0.75), parameters["weight"])
    assert ([1e6, 1.0], 7) == (parameters["norm.running_mean"].tolist(), parameters["count"].item())


def test_noise_has_the_size_of_the_largest_change() -> None:
    """In parameters; of running statistics, each has its own scale. What did not change at all is left alone."""
    draws = [left(result(), replace(OPEN, noise=0.1), one)["parameters"] for one in range(400)]
    spread = torch.stack([one["weight"] for one in draws]).std(0)
    assert 0.25 < spread.min() < 0.35 > spread.max() > 0.25
    means = torch.stack([one["norm.running_mean"] for one in draws]).std(0)
    assert (True, True) == (0.8e5 < float(means[0]) < 1.2e5, 0.08 < float(means[1]) < 0.12)
    same = result(parameters=RECEIVED)
    assert torch.equal(RECEIVED["weight"], left(same, DEFAULT)["parameters"]["weight"])


def test_the_same_training_has_the_same_noise() -> None:
    """So repeating it shows no more, and a training that a crash cut off can be made again. Any other input, or another
    datasite's key, gives other noise."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    told = [({"w": torch.ones(2)}, PLAIN, frame, np.ones(3)) for _ in range(2)]
    changed = [
        ({"w": torch.tensor([1.0, 1.0 + 1e-6])}, PLAIN, frame, np.ones(3)),
        ({"w": torch.ones(2)}, PLAIN | {"seed": 1}, frame, np.ones(3)),
        ({"w": torch.ones(2)}, PLAIN, frame.assign(b=["x", "z"]), np.ones(3)),
        ({"w": torch.ones(2)}, PLAIN, frame, np.ones((3, 1))),
    ]
    first, again, *others = [float(noise_of(b"key", *inputs).standard_normal()) for inputs in (*told, *changed)]
    others.append(float(noise_of(b"other", *told[0]).standard_normal()))
    assert first == again
    assert len(others) == len({*others} - {first})


def test_metrics_leave_with_two_digits() -> None:
    """Unless the owner lets them leave as they are; one that is not finite leaves as it is."""
    assert {"loss": 0.12} == left(result(), DEFAULT)["metrics"]
    assert {"loss": 0.123456} == left(result(), OPEN)["metrics"]
    assert math.inf == left(result(metrics={"loss": math.inf}), DEFAULT)["metrics"]["loss"]


def test_a_training_that_diverged_shows_nothing_else() -> None:
    """One value that is not finite makes all parameters NaN."""
    parameters = result()["parameters"] | {"weight": torch.tensor([[1.0, 2.0], [math.inf, 3.0]])}
    found = left(result(parameters=parameters), DEFAULT)["parameters"]
    assert bool(found["weight"].isnan().all() and found["norm.running_mean"].isnan().all())


@pytest.mark.parametrize(
    "found",
    [
        [1],
        {"rows": 3},
        result() | {"more": 1},
        result(samples=61),
        result(samples=True),
        result(metrics={"loss": "0.1"}),
        result(metrics={str(number): 0.1 for number in range(17)}),
        result(metrics={"x" * 65: 0.1}),
        result(metrics=[0.1]),
        result(parameters={"weight": torch.zeros(2, 2)}),
        result(parameters=RECEIVED | {"weight": torch.zeros(2, 3)}),
        result(parameters=RECEIVED | {"weight": torch.zeros(2, 2).double()}),
        result(parameters=RECEIVED | {"weight": [[0.0]]}),
    ],
)
def test_a_result_of_another_form_does_not_leave(found: Any) -> None:
    """The form is that of the training function."""
    with pytest.raises(Unbounded):
        left(found, DEFAULT)


def test_code_of_another_form_is_no_training() -> None:
    """Its owner reads what it does: the bounds have no hold on it."""
    forms = (
        ("parameters", "config", "data"),
        ("parameters", "config", "x", "y", "datasite"),
        ("data",),
        ("config", "x"),
    )
    assert [True, True, False, False] == [bounds_of.is_training(dict.fromkeys(form)) for form in forms]


def test_a_training_begins_with_tensors() -> None:
    """A copy of them is kept: the function may change those that it gets."""
    given = {"w": torch.zeros(2)}
    kept = bounds_of.copied(given)
    given["w"] += 1
    assert [0.0, 0.0] == kept["w"].tolist()
    for other in ({"w": [0.0]}, [torch.zeros(2)], None):
        with pytest.raises(Unbounded, match="not tensors by name"):
            bounds_of.copied(other)


def test_rows_are_those_of_the_data() -> None:
    """Of a table, an array, a pair or the client's own tensors."""
    rows = np.zeros((5, 2))
    given: list[dict[str, Any]] = [
        {"data": pd.DataFrame(rows)},
        {"data": {"x": rows, "y": rows}},
        {"x": rows, "y": rows[:4]},
    ]
    assert [5, 5, 4] == [bounds_of.rows_of(one) for one in given]


def test_a_dataset_has_its_own_bounds_or_the_datasites(tmp_path: Path) -> None:
    """Those that are switched off hold for nothing; a datasite that was told none has the defaults. Jobs read the same."""
    own, others = TrainingBounds(min_samples=9, features=("a",)), TrainingBounds(min_samples=8)
    told = {"": others, "mine": own, "open": TrainingBounds(enforce=False)}
    assert {"mine": own, "new": others} == bounds_of.of(told, {"new", "mine", "open"})
    assert {"new": DEFAULT} == bounds_of.of({}, {"new"})
    assert {} == bounds_of.kept(tmp_path)
    bounds_of.keep(tmp_path, told)
    assert told == bounds_of.kept(tmp_path)
    settings = LiveSettings(1, 30.0, {}, training_bounds=told)
    assert settings == decoded(settings.to_json(), LiveSettings, LARGEST_STATUS)
    (tmp_path / "training-bounds.json").write_text("[]")
    with pytest.raises(ValueError, match="damaged"):
        bounds_of.kept(tmp_path)


@pytest.fixture(scope="module")
def trained() -> dict[Attack, Any]:
    """What each attack makes of the training function that an owner would approve, without any bounds."""
    x, y = reconstruction.rows()
    function = training_function("innocent", maker(reconstruction.model()), "mse", "rows", ("x", "y"))
    namespace: dict[str, Any] = {}
    exec(function.source, namespace)
    train = namespace[function.name]
    return {one: train(parameters=one.parameters(), config=completed(one.config), x=x, y=y) for one in ATTACKS}


@pytest.mark.parametrize("attack", [ONE_STEP, TWO_STEPS])
def test_an_update_shows_rows_where_nothing_is_bounded(trained: dict[Attack, Any], attack: Attack) -> None:
    """Most of them, to within a hundredth; a clip alone hides none, as it only scales the update."""
    x, _ = reconstruction.rows()
    clipped = bounded(trained[attack], attack.parameters(), replace(OPEN, clip=100.0), len(x), noise_of(b"key"))
    assert 150 < attack.found(trained[attack]["parameters"], x)
    assert 150 < attack.found(clipped["parameters"], x)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_update_within_the_default_bounds_shows_no_row(trained: dict[Attack, Any], attack: Attack) -> None:
    """Whether the attack would be refused anyway, or keeps to the ranges, for ten datasites."""
    x, _ = reconstruction.rows()
    found = [
        attack.found(
            bounded(trained[attack], attack.parameters(), DEFAULT, len(x), noise_of(bytes([key])))["parameters"], x
        )
        for key in range(10)
    ]
    assert [0] * 10 == found


def test_the_attack_in_one_step_may_not_even_begin() -> None:
    """The one in two steps may: what holds against it is the noise."""
    whys = [refusal(DEFAULT, completed(one.config), 300) for one in (ONE_STEP, TWO_STEPS)]
    assert ["learning_rate must be 1e-06 to 1, not 100000", ""] == whys
    assert set(DEFAULTS) >= {"batch_size", "learning_rate", "epochs", "momentum", "weight_decay", "proximal_mu"}
