"""Compare federated training with each line alone and with central training, on one test set.

Writes the data, starts a fleet, trains, kills a datasite during a second training, and prints a table.

    scripts/example                                   work in a temporary folder, and delete it afterwards
    scripts/example --folder out                      work in this folder, and keep it
    scripts/example --write docs/federation.md        put table and plot into the document

The federated trainings are `fleet train` over real datasites. The models of one line alone, and of all data in one
place, are trained in this process, with the same function that the datasites run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bearings
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from central.client import LocalUpdate
from central.client.function import training_function
from central.client.source import maker
from central.client.training import completed
from central.federated import model_file
from central.federated.federation import Federation
from central.federated.participants import Parameters
from central.federated.plan import Address, TrainingPlan
from central.federated.rounds import RoundRules
from central.federated.threads import Threads
from fleet_common.contract import PROBE_HEADER, STATUS_PATH
from fleet_common.layout import WorkerFolder

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LINES = tuple(machine.name for machine in bearings.MACHINES)
VICTIM = "conveyor"
BEGIN, END = "<!-- example: begin -->", "<!-- example: end -->"


class InProcess:
    """A participant in this process. It runs the function that a datasite would run, on ``data``."""

    def __init__(self, name: str, data: pd.DataFrame, made: model_file.ModelFile) -> None:
        self.name = name
        self._data = data
        function = training_function("Model", maker(made.make()), made.loss, "vibration", ("vibration",))
        namespace: dict[str, Any] = {}
        exec(function.source, namespace)  # noqa: S102 - our own source, as a datasite runs it
        self._train = namespace[function.name]

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> LocalUpdate:  # noqa: ARG002 - a participant's signature
        result = self._train(dict(parameters), completed(config), self._data)
        return LocalUpdate(result["parameters"], result["metrics"], result["samples"])

    def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        """It trains while its caller waits."""

    def doing(self) -> str:
        return ""


@dataclass(frozen=True)
class Score:
    """The scores of one model on the test set, with its macro-F1 on each line's part of it."""

    name: str
    accuracy: float
    macro_f1: float
    by_line: tuple[float, ...]
    curve: tuple[float, ...]  # macro-F1 after each round


class Test:
    """The common test set: all four states of all three machines."""

    def __init__(self, folder: Path, made: model_file.ModelFile) -> None:
        with np.load(folder / "data" / "test.npz") as kept:
            self._x, self._y = torch.from_numpy(kept["x"]), torch.from_numpy(kept["y"])
            self._machine = kept["machine"]
        self._made = made
        self._scores = sys.modules[made.make.__module__].scores

    def of(self, parameters: Parameters, only: str = "") -> dict[str, float]:
        model = self._made.make()
        model.load_state_dict(parameters)
        model.eval()
        rows = torch.from_numpy(self._machine == only) if only else torch.ones(len(self._y), dtype=torch.bool)
        with torch.no_grad():
            predicted = model(self._x[rows]).argmax(1)
        scores: dict[str, float] = self._scores(predicted, self._y[rows])
        return scores

    def score(self, name: str, parameters: Parameters, curve: Sequence[float]) -> Score:
        total = self.of(parameters)
        by_line = tuple(self.of(parameters, line)["macro_f1"] for line in LINES)
        return Score(name, total["accuracy"], total["macro_f1"], by_line, tuple(curve))


# --- the fleet ---


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def prepared(folder: Path, seed: int) -> list[int]:
    """Write model, data and fleet.yaml into ``folder``. Returns the datasites' ports, which are free."""
    bearings.write(folder / "data", seed)
    shutil.copy(HERE / "model.py", folder)
    text = (HERE / "fleet.yaml").read_text(encoding="utf-8")
    dashboard, *ports = free_ports(1 + len(LINES))
    for written, free in zip((5100, 8191, 8192, 8193), (dashboard, *ports), strict=True):
        text = text.replace(f"port: {written}", f"port: {free}")
    (folder / "fleet.yaml").write_text(text, encoding="utf-8")
    return ports


def fleet(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "supervisor", "-f", str(folder / "fleet.yaml"), *words]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Run the fleet of ``folder``, and stop it afterwards in any case."""
    try:
        subprocess.run(fleet(folder, "up", "--detach"), check=True)
        yield
    finally:
        subprocess.run(fleet(folder, "down"), check=False)


def federated(folder: Path, output: str, rounds: int) -> subprocess.Popen[bytes]:
    words = ("train", str(folder / "model.py"), "--rounds", str(rounds), "--output", str(folder / output))
    return subprocess.Popen(fleet(folder, *words), cwd=folder)


def done(training: subprocess.Popen[bytes]) -> None:
    if code := training.wait():
        raise SystemExit(f"fleet train failed with exit code {code}")


def kill_while_training(port: int, state: Path, training: subprocess.Popen[bytes], metrics: Path, after: int) -> int:
    """Once ``after`` rounds are done, kill the worker at ``port`` while it trains. Returns the number of that round."""
    while training.poll() is None:
        now = status(port, state)
        if now and now["active_experiments"] and (done := rounds_done(metrics)) >= after:
            print(f"kill -9 {now['pid']}")
            os.kill(now["pid"], signal.SIGKILL)
            return done + 1
        time.sleep(0.01)
    raise SystemExit("the training ended before the datasite could be killed")


def status(port: int, state: Path) -> dict[str, Any] | None:
    """The full status of a datasite, which needs the key in its state folder; None without an answer."""
    try:
        headers = {PROBE_HEADER: WorkerFolder(state).probe_key.read_text()}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{STATUS_PATH}", headers=headers)
        with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310 - loopback, by http
            document: dict[str, Any] = json.load(answer)
            return document
    except OSError:
        return None


def rounds_done(metrics: Path) -> int:
    return len(rounds_of(metrics)) if metrics.exists() else 0


def rounds_of(metrics: Path) -> list[dict[str, Any]]:
    rounds: list[dict[str, Any]] = json.loads(metrics.read_text(encoding="utf-8"))["rounds"]
    return rounds


# --- the comparison ---


def alone(name: str, data: pd.DataFrame, made: model_file.ModelFile, test: Test, rounds: int) -> Score:
    """The same number of rounds by one participant alone, so that each average is its own update."""
    config = TrainingPlan("model.py", rounds, "", (Address(name, "", 0, "", ""),)).training_config(made.config)
    participants = [InProcess(name, data, made)]
    federation = Federation(participants, config, RoundRules(1, 600.0), Threads(), lambda _: None)
    curve, parameters = [], dict(model_file.fresh(made, 0).state_dict())
    for result in federation.run(parameters, 1, rounds):
        parameters = result.parameters
        curve.append(test.of(parameters)["macro_f1"])
    return test.score(name, parameters, curve)


def of_output(name: str, folder: Path, test: Test) -> Score:
    curve = [one["global"]["macro_f1"] for one in rounds_of(folder / "metrics.json")]
    return test.score(name, torch.load(folder / "parameters.pt", weights_only=True), curve)


def same_bits(one: Path, other: Path) -> bool:
    first, second = (torch.load(folder / "parameters.pt", weights_only=True) for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def table(scores: Sequence[Score], rows: Mapping[str, int], killed: str) -> str:
    """As Markdown."""
    head = ["model", "trained on", "accuracy", "macro-F1", *(f"F1 on {line}" for line in LINES)]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * 2}{'---:|' * (len(head) - 2)}"]
    for score in scores:
        numbers = [f"{value:.3f}" for value in (score.accuracy, score.macro_f1, *score.by_line)]
        lines.append(f"| {' | '.join([score.name, f'{rows[score.name]} windows', *numbers])} |")
    return "\n".join([*lines, "", killed])


def draw(scores: Sequence[Score], path: Path) -> None:
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    panels: Any = figure.subplots(1, 2, width_ratios=(3, 2))
    curves, bars = panels
    for score in scores:
        wide = score.name.startswith("federated")
        curves.plot(range(1, len(score.curve) + 1), score.curve, linewidth=2.4 if wide else 1.2, label=score.name)
    curves.set(xlabel="round", ylabel="macro-F1 on the common test set", ylim=(0, 1))
    curves.xaxis.set_major_locator(MaxNLocator(integer=True))
    curves.legend(fontsize=8)
    for at, score in enumerate(scores):
        bars.barh(at, score.macro_f1)
        bars.text(
            score.macro_f1 - 0.02, at, f"{score.macro_f1:.3f}", ha="right", va="center", color="white", fontsize=9
        )
    bars.set(yticks=range(len(scores)), yticklabels=[score.name for score in scores], xlabel="macro-F1", xlim=(0, 1))
    bars.invert_yaxis()
    figure.savefig(path, dpi=100)


def compare(folder: Path, rounds: int, seed: int) -> tuple[str, list[Score]]:
    ports = dict(zip(LINES, prepared(folder, seed), strict=True))
    made = model_file.load(folder / "model.py")
    test = Test(folder, made)
    with running(folder):
        done(federated(folder, "federated", rounds))
        print(f"\nThe same training again. {VICTIM} is killed while it trains.")
        again = federated(folder, "killed", rounds)
        state = folder / ".fleet" / "datasites" / VICTIM
        hit = kill_while_training(ports[VICTIM], state, again, folder / "killed" / "metrics.json", rounds // 2)
        done(again)
    same = same_bits(folder / "federated", folder / "killed")
    killed = (
        f"In a second run {VICTIM} was killed (SIGKILL) while it trained in round {hit} of {rounds}; the final "
        f"parameters are {'the same, bit for bit' if same else 'DIFFERENT'}."
    )
    data = {line: pd.read_csv(folder / "data" / f"{line}.csv") for line in LINES}
    everything = pd.concat(data.values(), ignore_index=True)
    scores = [
        of_output("federated", folder / "federated", test),
        alone("central", everything, made, test, rounds),
        *(alone(f"{line} alone", data[line], made, test, rounds) for line in LINES),
    ]
    sizes = {f"{line} alone": len(rows) for line, rows in data.items()}
    text = table(scores, {**sizes, "central": len(everything), "federated": len(everything)}, killed)
    if not same:
        raise SystemExit(f"{text}\n\nthe SIGKILL changed the result")
    return text, scores


def put_into(document: Path, text: str, scores: Sequence[Score]) -> None:
    """Replace the text between the marks in ``document``, and write the plot next to it."""
    picture = document.parent / "images" / "predictive-maintenance.png"
    picture.parent.mkdir(exist_ok=True)
    draw(scores, picture)
    before, _, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    shown = f"{BEGIN}\n\n{text}\n\n![macro-F1 over the rounds](images/{picture.name})\n\n{END}"
    document.write_text(before + shown + after, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--folder", type=Path, help="work in this folder and keep it (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=12, help="rounds of each training (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="seed of the data (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put table and plot into this document")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-example-")))
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        text, scores = compare(folder, options.rounds, options.seed)
        draw(scores, folder / "comparison.png")
        (folder / "comparison.md").write_text(text + "\n", encoding="utf-8")
        print(f"\n{text}\n\n{time.monotonic() - began:.0f} s in total")
        if options.folder:
            print(f"Data, trainings and plot are in {folder}.")
        if options.write:
            put_into(options.write, text, scores)


if __name__ == "__main__":
    main()
