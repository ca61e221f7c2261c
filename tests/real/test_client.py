"""The orchestrator's client against one real datasite: approval, training, what crosses the wire, SIGKILL, TLS."""

from __future__ import annotations

import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from central.client import (
    ClientError,
    DatasiteClient,
    DoesNotFit,
    Interrupted,
    LoginFailed,
    NotApproved,
    TimedOut,
    TrainingFailed,
    TrainingState,
    UnknownData,
    Unreachable,
    connect,
    jobs,
    transport,
)
from central.client.connection import Connection
from tests.real.harness import Alone, alone, answers, eventually, login
from tests.real.wire import content, wire

ROWS = 64
CONFIG = {"epochs": 5, "batch_size": 16, "learning_rate": 0.02, "seed": 7}
EMAIL, PASSWORD = "scientist@centre.example.com", "a-long-password"


class Wear(torch.nn.Module):
    """A small network, with a buffer of whole numbers among its parameters."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.hidden = torch.nn.Linear(3, hidden)
        self.out = torch.nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(torch.relu(self.hidden(self.norm(x))))
        return out


def private() -> tuple[Any, Any]:
    """Rows that no model, metric or mock shares a value with: float64, of 52 random bits each."""
    x = np.random.default_rng(0).normal(size=(ROWS, 3))
    return x, x @ np.array([[1.0], [-2.0], [0.5]])


def told_of(rows: Any) -> set[float]:
    """Every value, in full and as the training's float32."""
    return {float(one) for one in rows.ravel()} | {float(one) for one in rows.astype("float32").ravel()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    """A datasite with a dataset and the account of a data scientist."""
    with alone(tmp_path_factory.mktemp("site")) as made:
        made.start()
        furnish(login(made.state, made.port))
        yield made


def furnish(owner: Any) -> None:
    import syft as sy
    from syft.service.user.user_roles import ServiceRole

    x, y = private()
    assets = [sy.Asset(name="x", data=x, mock=x[:4] * 0), sy.Asset(name="y", data=y, mock=y[:4] * 0)]
    owner.upload_dataset(sy.Dataset(name="vibration", asset_list=assets))
    owner.users.create(
        name="S", email=EMAIL, password=PASSWORD, password_verify=PASSWORD, role=ServiceRole.DATA_SCIENTIST
    )


@pytest.fixture(scope="module")
def client(site: Alone) -> DatasiteClient:
    """The data scientist's."""
    return connect("http://127.0.0.1", site.port, EMAIL, PASSWORD)


@pytest.fixture(scope="module")
def model(client: DatasiteClient) -> str:
    return client.upload_model(Wear(4), "wear", "bearing wear from vibration", init={"hidden": 4})


def approve(site: Alone, request_id: str) -> None:
    import syft as sy

    login(site.state, site.port).api.services.request.get_by_uid(sy.UID(request_id)).approve()


@pytest.fixture(scope="module")
def approved(site: Alone, client: DatasiteClient, model: str) -> str:
    """The model's id, once its training on the vibration data is approved."""
    approve(site, client.execute_federated_training(model, CONFIG, "vibration").request_id)
    return model


def test_a_training_waits_for_the_owner(site: Alone, client: DatasiteClient, model: str) -> None:
    """A data scientist's request waits; it says which hash the owner may list; once approved, the same object trains."""
    assert "DATA_SCIENTIST" == client.role
    assert {"vibration": ("x", "y")} == client.datasets()
    training = client.execute_federated_training(model, CONFIG, "vibration")
    assert TrainingState.WAITING == training.state
    with pytest.raises(
        NotApproved, match=f"list {{hash: {training.code_hash}, dataset: vibration}} under approved_code"
    ) as refused:
        client.get_parameters(training)
    assert (client.code_hash(model, "vibration"), training.request_id) == (
        refused.value.code_hash,
        refused.value.request_id,
    )
    approve(site, training.request_id)
    assert TrainingState.DONE == training.wait(120)
    assert client.get_parameters(training).samples == client.get_parameters(model).samples == ROWS


def test_parameters_metrics_and_rows_come_back(client: DatasiteClient, approved: str) -> None:
    """Each round begins from the parameters it is given, under the one approval, and a seed repeats it, noise and all.
    Metrics come with two digits."""
    start = Wear(4).state_dict()
    first, again = (client.train(approved, start, CONFIG, "vibration", timeout=120) for _ in range(2))
    assert set(start) == set(first.parameters)
    assert {"loss", "loss_before", "mae"} == set(first.metrics)
    assert ROWS == first.samples
    for key in start:  # to rounding: a job has as many threads as the line can spare just then
        torch.testing.assert_close(first.parameters[key], again.parameters[key], rtol=1e-4, atol=1e-5)
    onward = client.train(approved, first.parameters, CONFIG, "vibration", timeout=120)
    assert onward.metrics["loss_before"] == pytest.approx(first.metrics["loss"], rel=0.3)
    assert [float(f"{value:.2g}") for value in first.metrics.values()] == list(first.metrics.values())


def test_only_parameters_and_metrics_cross_the_wire(site: Alone, approved: str) -> None:
    """Every body of a whole training between client and datasite is taken apart to the last number: the parameters are
    there, both ways, and not one value of the private rows."""
    torch.manual_seed(0)
    with wire(site.port) as crossing:
        client = connect("http://127.0.0.1", crossing.port, EMAIL, PASSWORD)
        model = client.upload_model(Wear(4), "wear", init={"hidden": 4})
        start = {key: one + 0.125 if one.is_floating_point() else one for key, one in Wear(4).state_dict().items()}
        update = client.train(model, start, CONFIG, "vibration", timeout=120)
        bodies = crossing.bodies()
    found = content(bodies)
    values = found.values()
    for name, one in (*start.items(), *update.parameters.items()):
        assert values >= {float(value) for value in one.flatten()}, name
    x, y = private()
    assert set() == values & (told_of(x) | told_of(y))
    assert [] == [text for text in found.texts for one in (*x.ravel(), *y.ravel()) if f"{one:.6f}" in text]
    assert [] == found.opaque


def test_after_a_sigkill_the_same_object_goes_on(site: Alone, client: DatasiteClient, approved: str) -> None:
    """A training that the SIGKILL cut off is told as interrupted; the next round needs no new login and no approval."""
    training = client.execute_federated_training(approved, {**CONFIG, "epochs": 1000, "batch_size": 4}, "vibration")
    eventually(lambda: training.state is TrainingState.RUNNING)
    site.end(signal.SIGKILL)
    site.start()
    with pytest.raises(Interrupted, match="start the training again"):
        client.get_parameters(training, timeout=60)
    update = client.train(approved, Wear(4).state_dict(), CONFIG, "vibration", timeout=120)
    assert ROWS == update.samples


def of_owner(site: Alone) -> Connection:
    owner = json.loads((site.state / "admin.json").read_text())
    url = transport.parsed("http://127.0.0.1", site.port)
    return Connection(url, owner["email"], owner["password"], transport.session(None, None, 60.0), 10.0)


@pytest.mark.slow
def test_a_training_is_cancelled_and_its_datasite_is_free(client: DatasiteClient, site: Alone, approved: str) -> None:
    """Also one that waits for its turn, or for the owner: none of them runs on, and the next one runs."""
    long = {**CONFIG, "epochs": 1000, "batch_size": 4}  # as long as the default bounds allow
    asked = [client.execute_federated_training(approved, long, "vibration") for _ in range(4)]
    eventually(lambda: [TrainingState.RUNNING] * 3 == [one.state for one in asked[:3]])
    with pytest.raises(TimedOut, match="still queued: other jobs take all training sessions there"):
        client.get_parameters(asked[3], timeout=0.5)
    owner = of_owner(site)
    shown = [(one.state, one.who, one.function, one.dataset) for one in jobs.living(owner, "solo")]
    rest = (EMAIL, asked[0].function_name, "vibration")
    assert [("running", *rest)] * 3 + [("queued", *rest)] == shown
    assert jobs.cancel(owner, jobs.living(owner, "solo")[0].id)
    assert [TrainingState.INTERRUPTED] * 4 == [one.cancel() for one in reversed(asked)]
    with pytest.raises(Interrupted, match="was cancelled"):
        client.get_parameters(asked[3])
    unapproved = client.upload_model(torch.nn.Sequential(torch.nn.Linear(3, 1)), "unapproved")
    assert TrainingState.INTERRUPTED == client.execute_federated_training(unapproved, CONFIG, "vibration").cancel()
    assert ROWS == client.train(approved, Wear(4).state_dict(), CONFIG, "vibration", timeout=120).samples
    assert [] == (answers(site.port) or {})["active_experiments"]


def test_a_training_that_fails_says_so_and_shows_no_data(client: DatasiteClient, site: Alone, approved: str) -> None:
    """An error at the datasite is told by its kind, without its message, which could hold data; the owner finds it in
    the datasite's log. ``check`` tells it before anything is asked, from the mock."""
    narrow = client.upload_model(torch.nn.Sequential(torch.nn.Linear(5, 1)), "narrow")
    with pytest.raises(DoesNotFit, match=r"on x of shape .rows, 3. and y of shape .rows, 1.: mat1 and mat2 shapes"):
        client.check(narrow, CONFIG, "vibration")
    client.check(approved, CONFIG, "vibration")
    training = client.execute_federated_training(narrow, CONFIG, "vibration")
    approve(site, training.request_id)
    with pytest.raises(TrainingFailed, match="failed at solo") as failed:
        client.get_parameters(training, timeout=120)
    assert f"running {training.function_name} (shape mismatch), please contact the Server Admin" in str(failed.value)
    assert "mat1" not in str(failed.value)
    assert "RuntimeError: mat1 and mat2 shapes cannot be multiplied" in site.log()


def test_mistakes_are_named(client: DatasiteClient, site: Alone, approved: str) -> None:
    """What is not there, and what cannot be, is told with the next step."""
    with pytest.raises(UnknownData, match="no dataset 'nothing'; it publishes: vibration"):
        client.execute_federated_training(approved, CONFIG, "nothing")
    with pytest.raises(UnknownData, match="no asset 'z'; it has: x, y"):
        client.execute_federated_training(approved, CONFIG, "vibration/z")
    with pytest.raises(ValueError, match="unknown key epoch;"):
        client.execute_federated_training(approved, {"epoch": 3}, "vibration")
    with pytest.raises(ValueError, match="not the parameters of wear"):
        client.train(approved, {"weight": torch.zeros(1)}, CONFIG, "vibration")
    with pytest.raises(ClientError, match="unknown model abc"):
        client.execute_federated_training("abc", CONFIG, "vibration")
    with pytest.raises(LoginFailed, match="ask the datasite's owner"):
        connect("http://127.0.0.1", site.port, EMAIL, "another")
    with pytest.raises(Unreachable, match="does not answer"):
        connect("http://127.0.0.1", 9, EMAIL, PASSWORD, patience=0.2)


def test_tensors_of_ones_own_are_for_the_owner_alone(site: Alone, client: DatasiteClient, approved: str) -> None:
    """An ADMIN sends data and trains on it, unasked, as existing centrals do; a data scientist may not."""
    kept = login(site.state, site.port)
    owner = json.loads((site.state / "admin.json").read_text())
    admin = connect("http://127.0.0.1", site.port, owner["email"], owner["password"])
    assert ("ADMIN", "ADMIN") == (admin.role, kept.user_role.name)
    data = {"x": torch.randn(40, 3), "y": torch.randn(40, 1)}
    model = admin.upload_model(Wear(4), "wear", init={"hidden": 4})
    assert 40 == admin.get_parameters(admin.execute_federated_training(model, CONFIG, data), 120).samples
    with pytest.raises(NotApproved):
        client.train(approved, Wear(4).state_dict(), CONFIG, data)


class Authority:
    """A certificate authority of the test's own, and what it gave out."""

    def __init__(self, folder: Path) -> None:
        import trustme

        ours = trustme.CA()
        self.file, self.ours = folder / "ca.pem", folder / "client.pem"
        ours.cert_pem.write_to_path(self.file)
        ours.issue_cert("centre.example.com").private_key_and_cert_chain_pem.write_to_path(self.ours)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        ours.issue_cert("127.0.0.1").configure_cert(self.context)
        ours.configure_trust(self.context)


def test_https_on_any_port_with_a_private_authority(site: Alone, approved: str, tmp_path: Path) -> None:
    """A whole training over TLS that ends on a port that is not 443, with a certificate from both sides; without the
    authority's, or without our own, there is no connection, and at once."""
    authority = Authority(tmp_path)
    authority.context.verify_mode = ssl.CERT_REQUIRED
    with wire(site.port, authority.context) as crossing:
        url = f"https://127.0.0.1:{crossing.port}"
        client = connect(url, None, EMAIL, PASSWORD, ca=authority.file, client_cert=authority.ours)
        model = client.upload_model(Wear(4), "wear", init={"hidden": 4})
        assert ROWS == client.train(model, Wear(4).state_dict(), CONFIG, "vibration", timeout=120).samples
        assert url == client.url
        with pytest.raises(Unreachable, match="set ca="):
            connect(url, None, EMAIL, PASSWORD, client_cert=authority.ours)
        with pytest.raises(Unreachable):
            connect(url, None, EMAIL, PASSWORD, ca=authority.file, patience=0.2)


def test_the_datasite_is_told_what_waits(site: Alone, client: DatasiteClient, approved: str) -> None:
    """Its log names each request that waits, with requester and hash."""
    model = client.upload_model(torch.nn.Sequential(torch.nn.Linear(3, 1)), "waiting")
    training = client.execute_federated_training(model, CONFIG, "vibration")
    assert f"waits for approval: {training.function_name} by {EMAIL}, {training.code_hash}" in site.log()
    assert answers(site.port) is not None
