"""``fleet train`` over real datasites: what is trained, what a SIGKILL in the middle changes (nothing), and going on after
an interruption."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from tests.real.harness import Fleet, a_fleet, answers, eventually

MODEL = """\
import torch

LOSS = "mse"
CONFIG = {"epochs": 40, "batch_size": 16, "learning_rate": 0.01, "target": "wear"}


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 1))

    def forward(self, x):
        return self.layers(x)


def evaluate(model):
    return {"distance": float((model(torch.eye(3)).squeeze(1) - torch.tensor([1.0, -2.0, 0.5])).abs().max())}
"""
ROUNDS = "3"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Lines alpha and beta, each with the same named dataset; the data of the two is one file, which is enough here."""
    folder = tmp_path_factory.mktemp("plant")
    x = np.random.default_rng(0).normal(size=(240, 3))
    table = pd.DataFrame(x, columns=["speed", "load", "heat"]).assign(wear=x @ np.array([1.0, -2.0, 0.5]))
    table.to_csv(folder / "wear.csv", index=False)
    table[["wear", "heat", "speed", "load"]].assign(noise=7).to_csv(folder / "turned.csv", index=False)
    (folder / "model.py").write_text(MODEL)
    with a_fleet(folder, extra=", datasets: [{name: wear, path: wear.csv}]") as made:
        yield made


class Run:
    """One ``fleet train`` in the background."""

    def __init__(self, fleet: Fleet, output: str, *words: str) -> None:
        self.folder = fleet.folder / output
        command = [sys.executable, "-m", "supervisor", "-f", str(fleet.file), "train", "model.py"]
        self.log = fleet.folder / f"{output}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--output", str(self.folder), *words], cwd=fleet.folder, stdout=log, stderr=log
            )

    def ended(self) -> int:
        try:
            return self.process.wait(300)
        finally:
            self.process.kill()

    def said(self) -> str:
        return self.log.read_text()

    def parameters(self) -> dict[str, torch.Tensor]:
        loaded: dict[str, torch.Tensor] = torch.load(self.folder / "parameters.pt", weights_only=True)
        return loaded

    def rounds(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = json.loads((self.folder / "metrics.json").read_text())["rounds"]
        return told


@pytest.fixture(scope="module")
def calm(plant: Fleet) -> Run:
    """An undisturbed training of three rounds."""
    run = Run(plant, "calm", "--rounds", ROUNDS)
    assert 0 == run.ended(), run.said()
    return run


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether every tensor has the same bits."""
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def pid_that_trains(port: int) -> int:
    """The worker that has a training under way, as soon as one has."""
    told = eventually(lambda: (said := answers(port)) and said["active_experiments"] and said)
    return int(told["pid"])


def test_a_training_leaves_parameters_metrics_and_a_plot(calm: Run) -> None:
    """Every round has both lines' share and the centre's measurement; the model has learnt what the data says."""
    assert {"parameters.pt", "checkpoint.pt", "metrics.csv", "metrics.json", "plot.png"} == {
        path.name for path in calm.folder.iterdir()
    }
    rounds = calm.rounds()
    assert [("alpha", 240), ("beta", 240)] * 3 == [
        (line["line"], line["samples"]) for one in rounds for line in one["lines"]
    ]
    assert rounds[-1]["mean"]["loss"] < 0.5 * rounds[0]["mean"]["loss_before"]
    assert rounds[-1]["global"]["distance"] < 1.0
    assert (calm.folder / "plot.png").read_bytes().startswith(b"\x89PNG")
    # 40 epochs of 15 batches in each of three rounds; the counter is a whole number and the lines' largest
    counted = calm.parameters()["layers.1.num_batches_tracked"]
    assert (torch.int64, 40 * 15 * 3) == (counted.dtype, counted.item())


def test_a_sigkill_of_a_line_in_the_middle_changes_nothing(plant: Fleet, calm: Run) -> None:
    """beta's process is killed while it trains; the round goes on with it, and the final parameters have the same bits."""
    run = Run(plant, "rough", "--rounds", ROUNDS)
    victim = pid_that_trains(plant.beta)
    os.kill(victim, signal.SIGKILL)
    assert 0 == run.ended(), run.said()
    assert eventually(lambda: answers(plant.beta))["pid"] != victim
    assert "SIGKILL" == plant.line("beta")["last_exit"]
    assert same(calm.parameters(), run.parameters())


@pytest.mark.slow
def test_a_training_that_a_sigkill_cut_off_is_made_again(plant: Fleet, calm: Run) -> None:
    """beta's process is killed once its job has computed for a while: PySyft marks that job interrupted, the round asks
    the line again, with the same parameters and seed, and says so."""
    seen = len(JOB.findall(plant.log("beta")))
    run = Run(plant, "cut", "--rounds", ROUNDS)
    eventually(lambda: has_computed(plant, seen))
    os.kill((answers(plant.beta) or {})["pid"], signal.SIGKILL)
    assert 0 == run.ended(), run.said()
    assert 2 == max(line["attempts"] for one in run.rounds() for line in one["lines"])
    assert "beta restarted while" in run.said()
    assert same(calm.parameters(), run.parameters())


JOB = re.compile(r"runs as pid (\d+)")


def has_computed(plant: Fleet, seen: int) -> bool:
    """Whether a job of beta that is not among the first ``seen`` ones has had the processor for a fifth of a second."""
    new = JOB.findall(plant.log("beta"))[seen:]
    try:
        return bool(new) and psutil.Process(int(new[-1])).cpu_times().user > 0.2
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_an_interrupted_training_goes_on_where_it_was(plant: Fleet, calm: Run) -> None:
    """SIGTERM after the first round ends with 130 and keeps it, and nothing runs on at the datasites; --resume yields the bits of a training in one go. Without
    --resume the folder is left alone."""
    run = Run(plant, "part", "--rounds", ROUNDS)
    eventually(lambda: "round 1/3" in run.said())
    eventually(lambda: (answers(plant.alpha) or {})["active_experiments"])
    run.process.terminate()
    assert 130 == run.ended(), run.said()
    assert [[], []] == [(answers(port) or {})["active_experiments"] for port in (plant.alpha, plant.beta)]
    assert "1 finished round is kept; --resume continues after the last" in run.said()
    again = Run(plant, "part", "--rounds", ROUNDS)
    assert 2 == again.ended()
    assert "has a training; continue it with --resume" in again.said()
    resumed = Run(plant, "part", "--rounds", ROUNDS, "--resume")
    assert 0 == resumed.ended(), resumed.said()
    assert [1, 2, 3] == [one["round"] for one in resumed.rounds()]
    assert same(calm.parameters(), resumed.parameters())


@pytest.mark.slow
def test_columns_are_matched_by_name(plant: Fleet, calm: Run) -> None:
    """beta's file has the same columns in another order, and one more: its first round has the very numbers of the
    training on equal files, and the column that is not used is told."""
    written = plant.file.read_text()
    mine = "{name: beta, datasets: [{name: wear, path: turned.csv}], "
    plant.file.write_text(written.replace("{name: beta, ", mine))
    plant.must("reload")
    eventually(lambda: "dataset wear: updated" in plant.log("beta"))
    run = Run(plant, "turned", "--rounds", "1")
    try:
        assert 0 == run.ended(), run.said()
    finally:
        plant.file.write_text(written)
        plant.must("reload")
    assert "beta: its column 'noise' is not used" in run.said()
    assert calm.rounds()[0]["lines"][1]["metrics"] == run.rounds()[0]["lines"][1]["metrics"]


def test_no_password_is_where_others_can_read_it(plant: Fleet) -> None:
    """The program that trains has the lines' logins neither in its arguments nor in its environment."""
    run = Run(plant, "secret", "--rounds", "1")
    pid_that_trains(plant.alpha)
    process = psutil.Process(run.process.pid)
    seen = " ".join([*process.cmdline(), *process.environ().values()])
    passwords = [json.loads((plant.state(name) / "admin.json").read_text())["password"] for name in ("alpha", "beta")]
    assert "central.federated" in seen
    assert [False, False] == [password in seen for password in passwords]
    assert 0 == run.ended(), run.said()


@pytest.mark.slow
def test_with_a_quorum_nobody_waits_for_a_datasite_that_is_down(plant: Fleet, calm: Run) -> None:
    """beta is stopped: rounds go on with alpha alone, without a wait, and beta takes part again once it is back."""
    plant.must("stop", "beta")
    run = Run(plant, "alone", "--rounds", "3", "--quorum", "1")
    assert 0 == run.ended(), run.said()
    assert 3 == run.said().count("1 of 2 datasites")
    assert "beta: it does not answer" in run.said()
    assert [("beta", "away")] * 3 == [
        (line["line"], line["state"]) for one in run.rounds() for line in one["lines"][1:]
    ]
    assert max(one["seconds"] for one in run.rounds()) < 3 * max(one["seconds"] for one in calm.rounds())
    run = Run(plant, "back", "--rounds", "40", "--quorum", "1")
    eventually(lambda: "round 1/40" in run.said())
    plant.must("start", "beta")
    eventually(lambda: "2 of 2 datasites" in run.said())
    run.process.terminate()
    assert 130 == run.ended(), run.said()


@pytest.mark.slow
def test_a_dataset_that_no_line_has_is_told_by_name(plant: Fleet) -> None:
    """A typing mistake ends the training, with what there is instead."""
    run = Run(plant, "typo", "--rounds", "1", "--data", "waer")
    assert 2 == run.ended(), run.said()
    assert "has no dataset 'waer'; it publishes: wear" in run.said()
