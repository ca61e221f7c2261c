"""Writes the training function that a datasite's owner approves: one source for all rounds of a model on a dataset.

Parameters and configuration are arguments, so one approval covers all rounds. The return statements show everything
that leaves the datasite: parameters, agreed metrics, the number of rows. The function prints and writes nothing.

PySyft also runs it on the mock, and a failure there fails the training. A mock may have no rows or random labels. On
such data the function returns the parameters it received, 0 rows, and as metrics the number of a problem and the place
of a column in the configuration (1 is the first; 0 is none). So nothing but numbers says what is wrong with the data.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fleet_common.contract import code_hash

PAIR = (("x", "y"), ("features", "target"), ("X", "y"))
"""Names of asset pairs that form one set of data: the features, and the target."""


FORMS = (("parameters", "config", "data"), ("parameters", "config", "x", "y"))
"""The arguments of a training function, for one asset and for a pair."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The source of a loss, of its metric, of the target's conversion, and of the check of the data."""

    value: str  # of ``out`` and ``wanted``
    target: str  # of ``target`` as the asset has it
    metric: str
    measure: str  # of ``out`` and ``wanted``; the metric is its mean over the rows
    usable: str = "True"  # of ``out`` (for one row) and ``target``


_NUMBERS = "target.float()"
LOSSES = {
    "mse": Loss(
        "torch.nn.functional.mse_loss(out, wanted.reshape(out.shape))",
        _NUMBERS,
        "mae",
        "(out - wanted.reshape(out.shape)).abs().mean()",
    ),
    "l1": Loss(
        "torch.nn.functional.l1_loss(out, wanted.reshape(out.shape))",
        _NUMBERS,
        "mae",
        "(out - wanted.reshape(out.shape)).abs().mean()",
    ),
    "cross_entropy": Loss(
        "torch.nn.functional.cross_entropy(out, wanted)",
        "(target.squeeze(1) if target.dim() == 2 and target.shape[1] == 1 else target).long()",
        "accuracy",
        "(out.argmax(1) == wanted).float().mean()",
        "0 <= int(target.min()) and int(target.max()) < out.shape[1]",
    ),
    "bce_with_logits": Loss(
        "torch.nn.functional.binary_cross_entropy_with_logits(out, wanted.reshape(out.shape))",
        _NUMBERS,
        "accuracy",
        "((out > 0) == (wanted.reshape(out.shape) > 0.5)).float().mean()",
    ),
}
"""The losses that a model can be uploaded with."""


def metrics_of(loss: str) -> frozenset[str]:
    """The names of the metrics that leave the datasite."""
    return frozenset({"loss", "loss_before", LOSSES[loss].metric})


@dataclass(frozen=True, slots=True)
class TrainingFunction:
    """The source, and its name and arguments for PySyft."""

    name: str
    arguments: tuple[str, ...]  # by these a datasite recognises a training, for which its owner's bounds hold
    source: str

    @property
    def hash(self) -> str:
        """The hash that the owner lists under ``approved_code``."""
        return code_hash(self.source)

    @property
    def signature(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return inspect.Signature([inspect.Parameter(name, kind) for name in self.arguments])


def training_function(model: str, maker: str, loss: str, data: str, assets: Sequence[str]) -> TrainingFunction:
    """The function that trains the model of ``maker`` on ``assets`` of the dataset ``data``: one, or a pair of
    ``PAIR``."""
    arguments = FORMS[len(assets) > 1]
    inputs = arguments[2:]
    pieces: dict[str, Any] = {
        "arguments": ", ".join(arguments),
        "title": f"Train the model {_word(model)} on the dataset {_plain(data)} ({', '.join(map(_plain, assets))})",
        "maker": textwrap.indent(maker.rstrip(), "    "),
        "given": _ONE if inputs == ("data",) else "x, y = plain(x), plain(y)",
        "value": LOSSES[loss].value,
        "target": LOSSES[loss].target,
        "metric": LOSSES[loss].metric,
        "measure": LOSSES[loss].measure,
        "usable": LOSSES[loss].usable,
    }
    unnamed = _fill({**pieces, "name": "train"})
    name = f"train_{_word(model)}_{hashlib.sha256(unnamed.encode()).hexdigest()[:8]}"
    return TrainingFunction(name, arguments, _fill({**pieces, "name": name}))


def _word(name: str) -> str:
    """``name`` as part of an identifier."""
    return re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_").lower()[:40] or "model"


def _plain(name: str) -> str:
    """``name`` without characters that could end a docstring."""
    return re.sub(r"[^\w .:/+-]", "_", name)


def _fill(pieces: dict[str, Any]) -> str:
    return re.sub(r"<<(\w+)>>", lambda found: pieces[found.group(1)], _TEMPLATE)


_ONE = """\
if hasattr(data, "columns") and misfit(data)[0] != FINE:
        return refused(*misfit(data))
    x, y = halves(data)"""

# Not use_deterministic_algorithms, which does the same: it imports torch's compiler, four seconds in each job.
_TEMPLATE = '''\
def <<name>>(<<arguments>>):
    """<<title>>. Only what it returns leaves."""
    import torch

    FINE, NO_ROWS, NO_CLASS, MISSING_COLUMN, NOT_NUMBERS, NOT_FINITE, LOSS_NOT_FINITE = range(7)

<<maker>>

    def plain(values):
        return torch.as_tensor(values.to_numpy() if hasattr(values, "to_numpy") else values)

    def named(values):
        wanted = config["target"] or values.columns[-1]
        return wanted, list(config["features"]) or [name for name in values.columns if name != wanted]

    def misfit(values):
        if not len(values):
            return NO_ROWS, 0
        asked = [*config["features"], config["target"]]
        for place, name in enumerate(asked):
            if name and name not in values.columns:
                return MISSING_COLUMN, place + 1
        wanted, known = named(values)
        for name in [*known, wanted]:
            if values[name].dtype.kind not in "biuf":
                return NOT_NUMBERS, asked.index(name) + 1 if name in asked else 0
        return FINE, 0

    def halves(values):
        if isinstance(values, dict):
            return plain(values["x"]), plain(values["y"])
        if not hasattr(values, "columns"):
            return plain(values)[:, :-1], plain(values)[:, -1]
        wanted, known = named(values)
        return plain(values[known].astype("float32")), plain(values[wanted].astype("float64"))

    def value(out, wanted):
        return <<value>>

    def measure(out, wanted):
        return <<measure>>

    def problem():
        if not len(x):
            return NO_ROWS
        if not (torch.isfinite(x).all() and torch.isfinite(target).all()):
            return NOT_FINITE
        model.eval()
        with torch.no_grad():
            out = model(x[:1])
        return FINE if <<usable>> else NO_CLASS

    def refused(problem, column=0):
        return {"parameters": parameters, "metrics": {"problem": problem, "column": column}, "samples": 0}

    def evaluate():
        model.eval()
        sums = [0.0, 0.0]
        with torch.no_grad():
            for rows in torch.arange(len(x), device=device).split(1024):
                out = model(x[rows])
                sums[0] += float(value(out, target[rows])) * len(rows)
                sums[1] += float(measure(out, target[rows])) * len(rows)
        return sums[0] / len(x), sums[1] / len(x)

    def optimizer():
        common = {"lr": config["learning_rate"], "weight_decay": config["weight_decay"]}
        if config["optimizer"] == "sgd":
            return torch.optim.SGD(model.parameters(), momentum=config["momentum"], **common)
        return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config["optimizer"]](model.parameters(), **common)

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if config["seed"] >= 0:
        torch.manual_seed(config["seed"])
        torch.set_deterministic_debug_mode("warn" if device == "cuda" else "default")
    <<given>>
    x, target = x.float().to(device), y.to(device)
    model = make_model().to(device)
    model.load_state_dict(parameters)
    if problem() != FINE:
        return refused(problem())
    target = <<target>>
    received = [one.detach().clone() for one in model.parameters()]
    loss_before, _ = evaluate()
    if not abs(loss_before) < float("inf"):
        return refused(LOSS_NOT_FINITE)
    model.train()
    step = optimizer()
    for _ in range(config["epochs"]):
        for rows in torch.randperm(len(x)).to(device).split(config["batch_size"]):
            if len(rows) == 1 < min(len(x), config["batch_size"]):
                continue  # batch normalisation cannot take one row
            step.zero_grad()
            total = value(model(x[rows]), target[rows])
            if config["proximal_mu"] > 0:
                moved = sum(((one - old) ** 2).sum() for one, old in zip(model.parameters(), received))
                total = total + config["proximal_mu"] / 2 * moved
            total.backward()
            step.step()
    loss, metric = evaluate()
    return {
        "parameters": {key: one.detach().cpu().clone() for key, one in model.state_dict().items()},
        "metrics": {"loss": loss, "loss_before": loss_before, "<<metric>>": metric},
        "samples": len(x),
    }
'''
