"""Centrals that were there before ``fleet``: PySyft's public API alone, an ADMIN's login, a port that hears beats only."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.real.harness import Central, Fleet, a_fleet, answers, eventually

TRUTH = torch.tensor([[1.0], [-2.0], [0.5]])


@pytest.fixture(scope="module")
def central() -> Iterator[Central]:
    """It listens for beats, and knows no registration."""
    made = Central()
    made.codes = {"/register_factory": 404}
    made.open()
    yield made
    made.close()


@pytest.fixture(scope="module")
def fleet(central: Central, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet whose lines know this central alone."""
    with a_fleet(tmp_path_factory.mktemp("fleet"), central.url) as made:
        yield made


def six_tensors() -> dict[str, torch.Tensor]:
    """Features and target to train, to validate and to test with."""
    torch.manual_seed(0)
    made = {}
    for part, rows in (("train", 64), ("val", 16), ("test", 16)):
        made[f"x_{part}"] = torch.randn(rows, 3)
        made[f"y_{part}"] = made[f"x_{part}"] @ TRUTH
    return made


def submitted(client: Any) -> None:
    """The central's own training function, as such centrals write it."""
    import syft as sy

    @sy.syft_function()
    def train_round(x_train, y_train, x_val, y_val, x_test, y_test):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        import torch

        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(200):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(x_train), y_train).backward()
            optimizer.step()
        with torch.no_grad():
            told = {name: value.detach() for name, value in model.state_dict().items()}
            told["val_loss"] = torch.nn.functional.mse_loss(model(x_val), y_val)
            told["test_loss"] = torch.nn.functional.mse_loss(model(x_test), y_test)
        return told

    client.code.request_code_execution(train_round)


def one_round(client: Any, sent: dict[str, Any]) -> dict[str, torch.Tensor]:
    """What the datasite hands back for the tensors that lie there."""
    answer = client.code.train_round(**sent)
    got: dict[str, torch.Tensor] = answer.get() if hasattr(answer, "get") and not isinstance(answer, dict) else answer
    return got


def check(got: dict[str, torch.Tensor]) -> None:
    """The trained model, as tensors."""
    assert {"weight", "bias", "val_loss", "test_loss"} == set(got)
    assert all(isinstance(value, torch.Tensor) for value in got.values())
    assert torch.allclose(TRUTH.T, got["weight"], atol=1e-3)
    assert 1e-4 > float(got["test_loss"])


def test_an_existing_central_trains_on_through_a_sigkill(fleet: Fleet, central: Central, tmp_path: Path) -> None:
    """ADMIN login, six float tensors sent, a self-contained function submitted and called; then SIGKILL, and the very
    same client and pointer objects train the next round."""
    import syft as sy

    client = fleet.login("alpha", fleet.alpha)
    sent = {name: sy.ActionObject.from_obj(value).send(client) for name, value in six_tensors().items()}
    assert 6 == len(sent)
    submitted(client)
    check(one_round(client, sent))
    before = (answers(fleet.alpha) or {})["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: (told := answers(fleet.alpha)) and told["pid"] != before)
    check(one_round(client, sent))


def test_beats_come_although_registration_is_unknown(fleet: Fleet, central: Central) -> None:
    """404 to registration is an answer, not a fault: each line beats on, with what such centrals read."""
    eventually(lambda: all(len(central.bodies("/heartbeat", name)) >= 2 for name in ("alpha", "beta")))
    assert central.bodies("/register_factory", "alpha")
    beat = central.bodies("/heartbeat", "alpha")[-1]
    assert ("alpha", "localhost", fleet.alpha, "cpu") == tuple(
        beat[key] for key in ("factory_name", "hostname", "port", "device")
    )
    assert datetime.fromisoformat(beat["timestamp"]).tzinfo is not None
