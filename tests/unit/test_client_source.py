"""A model's class becomes one text that stands alone, or the reason why it cannot is named."""

from __future__ import annotations

import collections
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name, which a model's module may well use
import yaml
from torch import nn

from central.client.errors import NotSelfContained
from central.client.source import made_by, maker

pytestmark = pytest.mark.process

SCALE = 2.5
STRANGE = object()


def squash(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x / SCALE) * math.pi


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return squash(self.inner(x))


class Base(nn.Module):
    """What a model's class is derived from travels too."""


class Net(Base):
    def __init__(self, width: int = 3, kind: str = "plain") -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.dropout = nn.Dropout(0.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = F.relu(block(x))
        out: torch.Tensor = self.dropout(x)
        return out


class NeedsYaml(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * len(yaml.safe_load("[1]"))


class NeedsObject(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if STRANGE else -x


class NeedsNothingKnown(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return never_defined(x)  # type: ignore[name-defined,no-any-return]  # noqa: F821 - the mistake that is tested


@pytest.mark.parametrize(
    ("model", "init"),
    [
        (Net(), None),
        (Net(5, "other"), {"width": 5, "kind": "other"}),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4), nn.Linear(4, 1)), None),
        (nn.Sequential(collections.OrderedDict(first=nn.Linear(3, 4), then=nn.GELU(), last=nn.Linear(4, 1))), None),
        (nn.LSTM(3, 8, batch_first=True), None),
        (nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(8, 2)), None),
        (nn.Sequential(Net(), nn.Linear(3, 1)), None),
    ],
    ids=["class", "arguments", "sequence", "names", "lstm", "conv", "mixed"],
)
def test_the_text_alone_makes_the_same_model(model: nn.Module, init: dict[str, object] | None) -> None:
    """With the parameters loaded it computes the same, in a namespace that holds nothing."""
    made = made_by(maker(model, init))
    made.load_state_dict(model.state_dict())
    x = torch.randn(6, 1, 4) if "Conv1d" in repr(model) else torch.randn(6, 5 if init else 3)
    expected, got = model.eval()(x), made.eval()(x)
    assert torch.equal(expected[0], got[0])


def test_the_same_model_gives_the_same_text() -> None:
    """Parameters do not matter to it: one approval covers all rounds, in every process."""
    assert maker(Net()) == maker(Net())
    assert maker(nn.Sequential(nn.Linear(3, 1))) == maker(nn.Sequential(nn.Linear(3, 1)))


def test_torchs_generator_is_left_as_it_was() -> None:
    """To look at a model must not change what the caller draws next."""
    model = Net()
    torch.manual_seed(3)
    expected = torch.randn(2)
    torch.manual_seed(3)
    maker(model)
    assert torch.equal(expected, torch.randn(2))


@pytest.mark.parametrize(
    ("model", "init", "why"),
    [
        (NeedsYaml(), None, "the module yaml, which a datasite does not have"),
        (NeedsObject(), None, "uses STRANGE .object.; only classes, functions and plain constants"),
        (NeedsNothingKnown(), None, "uses 'never_defined', which .* does not define at the top level"),
        (Net(5), None, "created from its source differs from this model; pass the arguments of its class as init="),
        (Net(5), {"width": torch.tensor(5)}, "init: width must be a number, a string, or a list or dict"),
        (nn.TransformerEncoderLayer(4, 2), None, "cannot be created from its source alone"),
    ],
    ids=["package", "object", "name", "arguments", "argument", "layer"],
)
def test_what_cannot_travel_is_named(model: nn.Module, init: dict[str, object] | None, why: str) -> None:
    """At the centre, before anything is sent."""
    with pytest.raises(NotSelfContained, match=why):
        maker(model, init)
