"""A fleet whose owner lists a training's hash in fleet.yaml, the owner's bounds for it, and the owner's commands for all
that is not listed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from central.client import DatasiteClient, NotApproved, TrainingFailed, TrainingState, connect
from tests import reconstruction
from tests.real.harness import Fleet, a_fleet, eventually
from tests.real.test_client import CONFIG, EMAIL, PASSWORD, ROWS, Wear, furnish
from tests.reconstruction import Attack


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with a_fleet(tmp_path_factory.mktemp("fleet")) as made:
        furnish(made.login("alpha", made.alpha))
        yield made


@pytest.fixture(scope="module")
def client(fleet: Fleet) -> DatasiteClient:
    return connect("http://127.0.0.1", fleet.alpha, EMAIL, PASSWORD)


def owner(fleet: Fleet, *words: str) -> str:
    """What an owner's command prints."""
    kept = json.loads((fleet.state("alpha") / "admin.json").read_text())
    command = [sys.executable, "-m", "central.client", "--url", f"http://127.0.0.1:{fleet.alpha}"]
    done = subprocess.run(
        [*command, "--email", kept["email"], *words],
        capture_output=True, text=True, timeout=200, check=False, cwd=Path(__file__).parents[2],
        env={**os.environ, "FLEET_PASSWORD": kept["password"]},
    )  # fmt: skip
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_a_listed_hash_needs_no_owner(fleet: Fleet, client: DatasiteClient) -> None:
    """It waits; the owner lists the hash that the client told and reloads; the same training then runs, once as listed,
    and another model's, which differs by a little, waits on. The line keeps its process."""
    model = client.upload_model(Wear(4), "wear", init={"hidden": 4})
    training = client.execute_federated_training(model, CONFIG, "vibration")
    assert TrainingState.WAITING == training.state
    pid = fleet.line("alpha")["pid"]
    listed = client.code_hash(model, "vibration")
    fleet.extra = f", approved_code: [{{hash: '{listed}', dataset: vibration, by: {EMAIL}, runs: 1}}]"
    fleet.write()
    assert 0 == fleet.run("reload").returncode
    eventually(lambda: training.state is not TrainingState.WAITING)
    assert ROWS == client.get_parameters(training, timeout=240).samples
    told = f"approved by fleet.yaml: {training.function_name} by {EMAIL}, {training.code_hash}"
    assert f"{told}, reads vibration/x, vibration/y" in fleet.log("alpha")
    with pytest.raises(TrainingFailed, match="the approval was for one run, and all of them were used"):
        client.train(model, Wear(4).state_dict(), CONFIG, "vibration", timeout=240)
    near = client.upload_model(Wear(5), "wear", init={"hidden": 5})
    with pytest.raises(NotApproved):
        client.train(near, Wear(5).state_dict(), CONFIG, "vibration")
    assert pid == fleet.line("alpha")["pid"]


@pytest.mark.slow
def test_the_owner_decides_on_the_command_line(fleet: Fleet, client: DatasiteClient) -> None:
    """What waits is shown with its hash and its text; one is approved and runs, one is denied and says why; and a new
    scientist can log in."""
    models = [client.upload_model(torch.nn.Sequential(torch.nn.Linear(3, 1)), name) for name in ("good", "bad")]
    good, bad = (client.execute_federated_training(model, CONFIG, "vibration") for model in models)
    shown = owner(fleet, "requests", "--source")
    for training in (good, bad):
        told = f"{training.request_id}  {training.function_name}  {EMAIL}\n  {training.code_hash}\n"
        assert f"{told}  reads vibration/x, vibration/y\n" in shown
    assert "torch.nn.Linear(in_features=3, out_features=1, bias=True)" in shown
    owner(fleet, "approve", good.request_id)
    owner(fleet, "deny", bad.request_id, "--reason", "too small")
    assert ROWS == client.get_parameters(good, timeout=240).samples
    with pytest.raises(NotApproved, match="too small"):
        client.get_parameters(bad)
    password = owner(fleet, "add-scientist", "new@centre.example.com").split(": ")[1].strip()
    assert "DATA_SCIENTIST" == connect("http://127.0.0.1", fleet.alpha, "new@centre.example.com", password).role


INNOCENT = "innocent"


def test_an_update_shows_no_row_unless_the_owner_switches_the_bounds_off(fleet: Fleet, client: DatasiteClient) -> None:
    """An approved model of two layers gives rows away where its scientist may do anything. With the default bounds the
    attack in one step does not begin, for the owner's own training neither, and the one that keeps to the ranges finds no
    row."""
    x, y = publish_rows(fleet)
    model = client.upload_model(reconstruction.model(), INNOCENT)
    listed = f", approved_code: [{{hash: '{client.code_hash(model, 'rows')}', dataset: rows}}]"
    bounded_by(fleet, f"{listed}, training_bounds: {{enforce: false}}", enforce=False)
    assert 100 < found(client, model, reconstruction.ONE_STEP, x)
    assert 100 < found(client, model, reconstruction.TWO_STEPS, x)
    bounded_by(fleet, listed, enforce=True)
    kept = json.loads((fleet.state("alpha") / "admin.json").read_text())
    admin = connect("http://127.0.0.1", fleet.alpha, kept["email"], kept["password"])
    for one, name in ((client, model), (admin, admin.upload_model(reconstruction.model(), INNOCENT))):
        with pytest.raises(
            TrainingFailed, match="bounds for the dataset rows refuse it: learning_rate must be 1e-06 to 1"
        ):
            found(one, name, reconstruction.ONE_STEP, x)
    assert 0 == found(client, model, reconstruction.TWO_STEPS, x)
    assert "by the bounds of the dataset rows: learning_rate must be" in fleet.log("alpha")
    assert len(x) == len(y)


def publish_rows(fleet: Fleet) -> tuple[Any, Any]:
    import syft as sy

    x, y = reconstruction.rows()
    assets = [sy.Asset(name=name, data=data, mock=data[:4] * 0) for name, data in (("x", x), ("y", y))]
    fleet.login("alpha", fleet.alpha).upload_dataset(sy.Dataset(name="rows", asset_list=assets))
    return x, y


def bounded_by(fleet: Fleet, extra: str, *, enforce: bool) -> None:
    """Reload with these settings, and wait until the datasite has taken the bounds up."""
    fleet.extra = extra
    fleet.write()
    assert 0 == fleet.run("reload").returncode
    told = fleet.state("alpha") / "training-bounds.json"
    eventually(lambda: json.loads(told.read_text())[""]["enforce"] is enforce)


def found(client: DatasiteClient, model: str, attack: Attack, private: Any) -> int:
    update = client.train(model, attack.parameters(), attack.config, "rows", timeout=240)
    return attack.found(update.parameters, private)
