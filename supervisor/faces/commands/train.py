"""``fleet train``: gathers the lines and their logins, and becomes the program that trains. No training is done here.

The logins go to that program on its standard input, a file in memory: arguments and environment can be read by others.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import click
import typer

from supervisor.faces.commands.arguments import FleetFileOption, Json, NoColor
from supervisor.faces.context import fleet_file, load_config, options
from supervisor.faces.faults import Exit, Fault, unknown_name
from supervisor.faces.formatting import clean

if TYPE_CHECKING:
    from supervisor.spec import DatasiteSpec, FleetConfig

_PROGRAM = ("-P", "-m", "central.federated")  # -P: nothing in the working directory takes its modules' place
_PATIENCE = 1.0


class Algorithm(StrEnum):
    """How the lines' parameters become one."""

    FEDAVG = "fedavg"
    FEDPROX = "fedprox"


ModelPath = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL.py",
        help="Defines Model, a torch.nn.Module; optional LOSS, CONFIG and evaluate(model).",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", "-n", min=1, metavar="N", help="How many rounds in all.")]
Data = Annotated[
    str, typer.Option("--data", metavar="NAME", help="The lines' dataset (default: the only one).", show_default=False)
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, metavar="N", help="Epochs per round.", show_default=False)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, metavar="N", help="Samples per step.", show_default=False)
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", min=0.0, metavar="RATE", help="Of each line.", show_default=False)
]
Algorithms = Annotated[Algorithm, typer.Option("--algorithm", help="How lines are kept together.")]
Mu = Annotated[
    float | None,
    typer.Option("--mu", min=0.0, metavar="MU", help="FedProx's proximal term (0.01).", show_default=False),
]
Quorum = Annotated[
    str, typer.Option("--quorum", metavar="all|N|SHARE", help="How many lines must answer: all, 3, 60%.")
]
RoundTimeout = Annotated[
    float, typer.Option("--round-timeout", min=1.0, metavar="SECONDS", help="Deadline of a round.", show_default=True)
]
Seed = Annotated[int, typer.Option("--seed", min=0, metavar="N", help="The same seed and lines give the same bits.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on after the last round in the output folder.")]
TrainingFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Where to write (MODEL-training).", show_default=False),
]
Lines = Annotated[
    list[str] | None,
    typer.Option("--line", metavar="NAME", help="Only this line; may be repeated.", show_default=False),
]


def train(
    context: typer.Context,
    model: ModelPath,
    rounds: Rounds = 10,
    file: FleetFileOption = None,
    data: Data = "",
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    learning_rate: LearningRate = None,
    algorithm: Algorithms = Algorithm.FEDAVG,
    mu: Mu = None,
    quorum: Quorum = "all",
    round_timeout: RoundTimeout = 600.0,
    seed: Seed = 0,
    resume: Resume = False,
    output: TrainingFolder = None,
    line: Lines = None,
    as_json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Train a model over the fleet: each line trains on its own data, only parameters leave it.

    Writes metrics.csv, metrics.json, plot.png, parameters.pt and a checkpoint after each round. A line that crashes is
    asked again; --quorum says how many must answer for a round to count. See docs/federation.md.

    \b
    Examples:
      fleet train model.py --rounds 20
      fleet train model.py --rounds 20 --algorithm fedprox --mu 0.1 --quorum 80%
      fleet train model.py --rounds 40 --resume
    """
    if mu is not None and algorithm is not Algorithm.FEDPROX:
        raise Fault("--mu is FedProx's: it goes with --algorithm fedprox", Exit.WRONG_USE)
    config = load_config(fleet_file(context, file))
    chosen = _chosen(config, line)
    said = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    plan = {
        "model": str(model.absolute()),
        "rounds": rounds,
        "output": str((output or Path(f"{model.stem}-training")).absolute()),
        "lines": [_address(config, spec) for spec in chosen],
        "data": data,
        "algorithm": algorithm.value,
        "mu": mu,
        "config": {key: value for key, value in said.items() if value is not None},
        "quorum": quorum,
        "deadline": round_timeout,
        "seed": seed,
        "resume": resume,
        "as_json": as_json,
        "color": not (no_color or options(context).no_color),
    }
    _refuse_silence(config, chosen)
    _become(json.dumps(plan).encode())


def _chosen(config: FleetConfig, names: list[str] | None) -> list[DatasiteSpec]:
    known = {spec.name: spec for spec in config.datasites}
    for name in names or ():
        if name not in known:
            raise unknown_name(name, known)
    return [spec for spec in config.datasites if not names or spec.name in names]


def _address(config: FleetConfig, spec: DatasiteSpec) -> dict[str, Any]:
    """Where the line is, and its owner's login."""
    from supervisor.faces import logins
    from supervisor.spec import http_url

    login = logins.read(config.state_dir, spec.name)
    url = http_url(spec.hostname, spec.port).rpartition(":")[0]
    return {"name": spec.name, "url": url, "port": spec.port, "email": login.email, "password": login.password}


def _refuse_silence(config: FleetConfig, chosen: Iterable[DatasiteSpec]) -> None:
    """Raises Fault when no line listens at all: that is a fleet that is down, not lines that will be back."""
    if not any(_listens(spec) for spec in chosen):
        raise Fault("no line answers", Exit.NOT_RUNNING, next_step=f"fleet up {clean(str(config.path))}")


def _listens(spec: DatasiteSpec) -> bool:
    from supervisor.effects.prober import address

    try:
        socket.create_connection(address(spec), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _become(plan: bytes) -> NoReturn:
    """This very process goes on as the training: signals reach it, and its exit code is the command's."""
    held = os.memfd_create("plan")
    os.write(held, plan)
    os.lseek(held, 0, os.SEEK_SET)
    os.dup2(held, 0)
    os.close(held)
    click.get_text_stream("stdout").flush()
    os.execv(sys.executable, [sys.executable, *_PROGRAM])  # noqa: S606 - no shell: our own interpreter and module
