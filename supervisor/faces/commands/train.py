"""``fleet train``: collects the datasites and their logins, and replaces this process by the program that trains."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from supervisor.faces import centre
from supervisor.faces.commands.arguments import FleetFileOption, Json, NoColor
from supervisor.faces.context import fleet_file, load_config, options
from supervisor.faces.faults import Exit, Fault, unknown_name
from supervisor.faces.formatting import clean

if TYPE_CHECKING:
    from supervisor.spec import DatasiteSpec, FleetConfig

_PROGRAM = centre.program("central.federated")
_PATIENCE = 1.0


class Algorithm(StrEnum):
    """How the datasites' parameters are combined."""

    FEDAVG = "fedavg"
    FEDPROX = "fedprox"


ModelPath = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL.py",
        help="Defines Model, a torch.nn.Module; optional: LOSS, CONFIG, evaluate().",
        exists=True,
        dir_okay=False,
        readable=True,
    ),
]
Rounds = Annotated[int, typer.Option("--rounds", "-n", min=1, metavar="N", help="Number of rounds in all.")]
Data = Annotated[
    str, typer.Option("--data", metavar="NAME", help="The dataset to train on (the only one).", show_default=False)
]
Epochs = Annotated[
    int | None, typer.Option("--epochs", min=1, metavar="N", help="Epochs per round.", show_default=False)
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", min=1, metavar="N", help="Samples per step.", show_default=False)
]
LearningRate = Annotated[
    float | None, typer.Option("--learning-rate", min=0.0, metavar="RATE", help="Learning rate.", show_default=False)
]
Algorithms = Annotated[Algorithm, typer.Option("--algorithm", help="How to combine the datasites' parameters.")]
Mu = Annotated[
    float | None,
    typer.Option("--mu", min=0.0, metavar="MU", help="FedProx's proximal term (0.01).", show_default=False),
]
Quorum = Annotated[str, typer.Option("--quorum", metavar="all|N|SHARE", help="How many must answer: all, 3, 60%.")]
RoundTimeout = Annotated[
    float, typer.Option("--round-timeout", min=1.0, metavar="SECONDS", help="Deadline of a round.", show_default=True)
]
Grace = Annotated[
    float | None,
    typer.Option(
        "--grace",
        min=0.0,
        metavar="SECONDS",
        help="How long to wait for the others once --quorum datasites have answered (until the deadline).",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, metavar="N", help="Equal seeds give equal results (0).", show_default=False),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue after the last round in the output.")]
TrainingFolder = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="DIR", help="Where to write results (MODEL-training).", show_default=False),
]
Datasites = Annotated[
    list[str] | None,
    typer.Option("--datasite", metavar="NAME", help="Only this datasite; repeatable.", show_default=False),
]
OldDatasites = Annotated[list[str] | None, typer.Option("--line", hidden=True)]  # how --datasite was spelled before


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
    grace: Grace = None,
    seed: Seed = None,
    resume: Resume = False,
    output: TrainingFolder = None,
    datasite: Datasites = None,
    line: OldDatasites = None,
    as_json: Json = False,
    no_color: NoColor = False,
) -> None:
    """Train a model over all datasites of the fleet.

    Each datasite trains on its own data; only parameters leave it. Writes metrics.csv, metrics.json, plot.png,
    parameters.pt and a checkpoint after each round. A datasite that crashes is asked again; a round counts when
    --quorum datasites answer, --grace seconds after them. See docs/federation.md.

    \b
    Examples:
      fleet train model.py --rounds 20
      fleet train model.py --rounds 20 --algorithm fedprox --mu 0.1 --quorum 80%
      fleet train model.py --rounds 40 --resume
    """
    if mu is not None and algorithm is not Algorithm.FEDPROX:
        raise Fault("--mu needs --algorithm fedprox", Exit.WRONG_USE)
    config = load_config(fleet_file(context, file))
    chosen = _chosen(config, [*(datasite or ()), *(line or ())])
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    plan = {
        "model": str(model.absolute()),
        "rounds": rounds,
        "output": str((output or Path(f"{model.stem}-training")).absolute()),
        "lines": [centre.address(config, spec) for spec in chosen],
        "data": data,
        "algorithm": algorithm.value,
        "mu": mu,
        "config": {key: value for key, value in given.items() if value is not None},
        "quorum": quorum,
        "deadline": round_timeout,
        "grace": grace,
        "seed": seed,
        "resume": resume,
        "as_json": as_json,
        "color": not (no_color or options(context).no_color),
    }
    _require_answer(config, chosen)
    _become(json.dumps(plan).encode())


def _chosen(config: FleetConfig, names: list[str]) -> list[DatasiteSpec]:
    known = {spec.name: spec for spec in config.datasites}
    for name in names:
        if name not in known:
            raise unknown_name(name, known)
    return [spec for spec in config.datasites if not names or spec.name in names]


def _require_answer(config: FleetConfig, chosen: Iterable[DatasiteSpec]) -> None:
    """Raises Fault when no datasite listens: then the fleet is down, and waiting does not help."""
    if not any(_listens(spec) for spec in chosen):
        raise Fault("no datasite answers", Exit.NOT_RUNNING, next_step=f"fleet up {clean(str(config.path))}")


def _listens(spec: DatasiteSpec) -> bool:
    from supervisor.effects.prober import address

    try:
        socket.create_connection(address(spec), timeout=_PATIENCE).close()
    except OSError:
        return False
    return True


def _become(plan: bytes) -> NoReturn:
    centre.become(_PROGRAM, plan)
