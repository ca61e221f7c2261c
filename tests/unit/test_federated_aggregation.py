"""Federated averaging: what the new global parameters are, and which updates have no part in them."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch

from central.federated.aggregation import NothingToAverage, average, problem_with


@dataclass(frozen=True)
class Handed:
    """An update as a line hands it in."""

    parameters: dict[str, torch.Tensor]
    samples: int
    metrics: dict[str, float] = field(default_factory=dict)


def weight(value: float, samples: int = 1, dtype: torch.dtype = torch.float32) -> Handed:
    return Handed({"weight": torch.tensor([value], dtype=dtype)}, samples)


def test_lines_count_by_their_samples() -> None:
    """A line with three times the samples has three times the say."""
    assert [2.5] == average([weight(1.0, 1), weight(3.0, 3)])["weight"].tolist()


def test_one_line_is_its_own_average() -> None:
    """With a single update, the global parameters are that update, bit by bit."""
    torch.manual_seed(0)
    alone = Handed(dict(torch.nn.Linear(7, 5).state_dict()), 13)
    merged = average([alone])
    assert all(torch.equal(merged[name], tensor) for name, tensor in alone.parameters.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_every_tensor_keeps_its_type(dtype: torch.dtype) -> None:
    """Half precision comes back as half precision, complex as complex."""
    merged = average([weight(1.0, 1, dtype), weight(2.0, 1, dtype)])["weight"]
    assert (dtype, 1.5) == (merged.dtype, merged[0].real.item())


def test_sums_are_made_in_double_precision() -> None:
    """Ten thousand and one lines in float32 do not lose the small one: the sum is float64 until the end."""
    updates = [weight(1.0)] * 3 + [weight(1.0 + 2**-23)]
    in_double = (3 * 1.0 + 1.0 + 2**-23) / 4
    assert torch.tensor(in_double, dtype=torch.float32).item() == average(updates)["weight"].item()
    many = [weight(16777216.0), *[weight(1.0)] * 16]
    assert torch.tensor((16777216.0 + 16) / 17).item() == average(many)["weight"].item()


def test_the_running_statistics_of_batch_norm_are_averaged_and_its_counter_is_the_largest() -> None:
    """running_mean and running_var are means by samples; num_batches_tracked stays a whole number, the maximum."""
    first, second = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    first.running_mean, second.running_mean = torch.tensor([0.0, 4.0]), torch.tensor([4.0, 0.0])
    first.num_batches_tracked, second.num_batches_tracked = torch.tensor(10), torch.tensor(31)
    merged = average([Handed(dict(first.state_dict()), 1), Handed(dict(second.state_dict()), 3)])
    assert [3.0, 1.0] == merged["running_mean"].tolist()
    assert [1.0, 1.0] == merged["running_var"].tolist()
    assert (torch.int64, 31) == (merged["num_batches_tracked"].dtype, merged["num_batches_tracked"].item())
    torch.nn.BatchNorm1d(2).load_state_dict(merged)


def test_flags_stay_flags() -> None:
    """A boolean buffer is set where one line set it."""
    first = Handed({"mask": torch.tensor([True, False, False])}, 1)
    second = Handed({"mask": torch.tensor([False, False, True])}, 1)
    assert [True, False, True] == average([first, second])["mask"].tolist()


def test_an_average_changes_no_update() -> None:
    """What the lines handed in is as it was."""
    updates = [weight(1.0), weight(3.0)]
    average(updates)
    assert [1.0, 3.0] == [update.parameters["weight"].item() for update in updates]


def test_there_is_no_average_of_nothing() -> None:
    """No updates, or none with a sample, is an error and never a zero."""
    for updates in ([], [weight(1.0, 0)]):
        with pytest.raises(NothingToAverage):
            average(updates)


MODEL = {"weight": torch.zeros(2, 3), "count": torch.tensor(0)}
BAD = {
    "it trained on 0 samples": (MODEL, 0),
    "count is missing": ({"weight": torch.zeros(2, 3)}, 1),
    "extra is not part of the model": ({**MODEL, "extra": torch.zeros(1)}, 1),
    "weight has shape (3, 2) instead of (2, 3)": ({**MODEL, "weight": torch.zeros(3, 2)}, 1),
    "weight is float64 instead of float32": ({**MODEL, "weight": torch.zeros(2, 3, dtype=torch.float64)}, 1),
    "weight has values that are not finite (NaN or infinity)": ({**MODEL, "weight": torch.full((2, 3), torch.nan)}, 1),
}


@pytest.mark.parametrize("problem", BAD)
def test_what_would_spoil_the_average_is_named(problem: str) -> None:
    """NaN, another shape or type, a missing tensor, no samples: each is told in words."""
    parameters, samples = BAD[problem]
    assert problem == problem_with(Handed(parameters, samples), MODEL)


def test_infinity_is_no_number_either() -> None:
    """One infinite value among many is enough."""
    assert "not finite" in problem_with(
        Handed({**MODEL, "weight": torch.tensor([[1.0, 2, 3], [4, -torch.inf, 6]])}, 1), MODEL
    )


def test_a_sound_update_has_no_problem() -> None:
    """Shape, type and values as in the model: nothing to say."""
    assert "" == problem_with(Handed(MODEL, 5), MODEL)
