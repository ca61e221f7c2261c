"""What the lines are for: the centre's function trains on private data, and parameters come back. And what becomes of
it when the datasite dies meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.real.harness import Fleet, a_fleet, answers, eventually, select_nothing

SECONDS = 4
"""How long the trainings last that something is to be seen during."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Lines that train one job at a time, so that one waits behind another."""
    with a_fleet(tmp_path_factory.mktemp("fleet"), extra=", resources: {max_concurrent_training_sessions: 1}") as made:
        yield made


@pytest.fixture(scope="module")
def client(fleet: Fleet) -> Any:
    """The admin's client of alpha, with vibration data on it."""
    import syft as sy

    made = fleet.login("alpha", fleet.alpha)
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    y = x @ np.array([[1.0], [-2.0], [0.5]], dtype="float32")
    made.upload_dataset(
        sy.Dataset(
            name="vibration",
            asset_list=[sy.Asset(name="x", data=x, mock=x[:4]), sy.Asset(name="y", data=y, mock=y[:4])],
        )
    )
    return made


def training(client: Any, name: str, seconds: float) -> Any:
    """A self-contained training function, submitted and approved; it trains at least ``seconds``."""
    import syft as sy

    x, y = client.datasets[0].assets["x"], client.datasets[0].assets["y"]

    def train(x, y):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        import time

        import torch

        features, target = torch.tensor(x), torch.tensor(y)
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        began = time.monotonic()
        rounds = 0
        while rounds < 300 or time.monotonic() - began < SECONDS:  # put in below
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(model(features), target).backward()
            optimizer.step()
            rounds += 1
        return {key: value.detach() for key, value in model.state_dict().items()}

    wrapped = sy.syft_function(input_policy=sy.ExactMatch(x=x, y=y), name=name)(train)
    wrapped.code = wrapped.code.replace("SECONDS", str(seconds))
    client.code.request_code_execution(wrapped).approve(approve_nested=True)
    return lambda **how: getattr(client.code, name)(x=x, y=y, **how)


def weights(result: Any) -> list[float]:
    told = result.get() if hasattr(result, "get") and not isinstance(result, dict) else result
    return [round(float(value), 2) for value in told["weight"].flatten()]


@pytest.mark.alone
def test_parameters_come_back_and_the_line_answers_meanwhile(fleet: Fleet, client: Any) -> None:
    """A blocking training blocks its caller alone: the status answers within a second, and names what trains."""
    train = training(client, "train_blocking", SECONDS)
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(train()))
    thread.start()
    longest, seen = 0.0, set()
    while thread.is_alive():
        began = time.monotonic()
        told = answers(fleet.alpha)
        longest = max(longest, time.monotonic() - began)
        assert told is not None
        seen.update(told["active_experiments"])
        select_nothing()
    assert [1.0, -2.0, 0.5] == weights(results[0])
    assert {"train_blocking"} == seen
    assert longest < 1.0
    after = answers(fleet.alpha) or {}
    assert [] == after["active_experiments"]
    assert after["last_training_completion"] is not None


def test_a_queued_training_completes(fleet: Fleet, client: Any) -> None:
    """``blocking=False`` gives a job, which runs, is seen running, and yields the parameters."""
    train = training(client, "train_queued", 2)
    job = train(blocking=False)
    eventually(lambda: (answers(fleet.alpha) or {})["active_experiments"] == ["train_queued"])
    assert [1.0, -2.0, 0.5] == weights(job.wait(timeout=60))


def test_a_queued_training_runs_on_the_data_alone(fleet: Fleet, client: Any) -> None:
    """Once, not a second time on the mock, from which it may have nothing to learn."""
    import syft as sy

    x = np.arange(6.0)
    client.upload_dataset(sy.Dataset(name="once", asset_list=[sy.Asset(name="once", data=x, mock=-x)]))
    asset = next(one for one in client.datasets if one.name == "once").assets["once"]

    def once(x):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        if x.sum() < 0:
            raise ValueError("this is the mock")
        with open("runs", "a") as runs:
            runs.write("run\n")
        return float(x.sum())

    wrapped = sy.syft_function(input_policy=sy.ExactMatch(x=asset))(once)
    client.code.request_code_execution(wrapped).approve(approve_nested=True)
    assert 15.0 == client.code.once(x=asset, blocking=False).wait(timeout=60).get()
    assert "run\n" == (fleet.state("alpha") / "work" / "runs").read_text()


def test_the_centre_is_told_what_trains(fleet: Fleet, client: Any) -> None:
    """The heartbeat carries the running function and the last completion."""
    import json
    import urllib.request

    def told() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{fleet.dashboard}/factories/alpha", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    job = training(client, "train_seen", SECONDS)(blocking=False)
    eventually(lambda: told()["active_experiments"] == ["train_seen"])
    job.wait(timeout=60)
    eventually(lambda: told()["active_experiments"] == [] and told()["last_training_completion"])


@pytest.mark.slow
def test_a_job_that_a_crash_cut_off_is_interrupted(fleet: Fleet, client: Any) -> None:
    """Not PROCESSING for ever: marked and reported. What waited behind it runs, and so does what comes new."""
    cut_off = training(client, "train_long", 600)(blocking=False)
    eventually(lambda: (answers(fleet.alpha) or {})["active_experiments"] == ["train_long"])
    waiting = training(client, "train_waiting", 0)(blocking=False)
    from syft.service.job.job_stash import JobStatus

    before = (answers(fleet.alpha) or {})["pid"]
    os.kill(before, signal.SIGKILL)
    back = eventually(lambda: (told := answers(fleet.alpha)) and told["pid"] != before and told)
    assert [f"train_long ({cut_off.id})"] == back["interrupted_jobs"]
    assert "interrupted when this datasite last ended (1): train_long" in fleet.log("alpha")
    cut_off.fetch()
    assert (JobStatus.INTERRUPTED, True) == (cut_off.status, cut_off.resolved)
    assert [1.0, -2.0, 0.5] == weights(waiting.wait(timeout=60))
    assert [1.0, -2.0, 0.5] == weights(training(client, "train_after", 0)(blocking=False).wait(timeout=60))


def test_user_code_that_ends_the_process_costs_the_line_a_restart(fleet: Fleet, client: Any) -> None:
    """``os._exit`` in a blocking call: the caller's request fails, the line is back, its data and functions are there."""
    import syft as sy

    def leave():  # type: ignore[no-untyped-def]  # noqa: ANN202 - PySyft ships its source
        import os

        os._exit(7)

    train = training(client, "train_on", 0)
    client.code.request_code_execution(sy.syft_function()(leave)).approve(approve_nested=True)
    before = fleet.line("alpha")
    with pytest.raises(Exception, match=r"."):
        client.code.leave()
    after = eventually(
        lambda: (line := fleet.line("alpha"))["ready"] and line["restarts"] > before["restarts"] and line
    )
    assert (before["restarts"] + 1, "exit code 7") == (after["restarts"], after["last_exit"])
    assert [1.0, -2.0, 0.5] == weights(train())
