"""The orchestrator's client against a plain PySyft 0.9.5 datasite, as ``sy.orchestra.launch`` makes one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from central.client import NotApproved, connect
from fleet_tools.ports import free_ports
from tests.real.harness import eventually
from tests.real.test_client import CONFIG, EMAIL, PASSWORD, ROWS, Wear, furnish

PLAIN = """
import signal, sys
import syft as sy
sy.orchestra.launch(name="plain", port=int(sys.argv[1]), host="127.0.0.1", n_consumers=int(sys.argv[2]),
                    create_producer=True)
print("up", flush=True)
signal.pause()
"""


@contextmanager
def plain(folder: Path, consumers: int) -> Iterator[int]:
    """The port of a plain datasite, in a process group of its own that is gone afterwards."""
    port, console = free_ports(1)[0], folder / "console"
    with console.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PLAIN, str(port), str(consumers)],
            stdout=output, stderr=output, cwd=folder, start_new_session=True,
            env={**os.environ, "SYFT_TEMP_ROOT": str(folder)},
        )  # fmt: skip
    try:
        eventually(lambda: console.read_bytes().rstrip().endswith(b"up") or process.poll() is not None)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(15)


def owner_of(port: int) -> Any:
    import syft as sy

    return sy.login(url="http://127.0.0.1", port=port, email="info@openmined.org", password="changethis")


@pytest.mark.parametrize(
    "consumers", [pytest.param(1, marks=pytest.mark.slow), 0], ids=["with a worker", "without workers"]
)
def test_a_plain_datasite_serves_as_well(tmp_path: Path, consumers: int) -> None:
    """The same calls, with PySyft's own queue, or, where it has no worker, in the call itself."""
    import syft as sy

    with plain(tmp_path, consumers) as port:
        owner = owner_of(port)
        furnish(owner)
        client = connect("http://127.0.0.1", port, EMAIL, PASSWORD)
        model = client.upload_model(Wear(4), "wear", init={"hidden": 4})
        with pytest.raises(NotApproved) as refused:
            client.train(model, Wear(4).state_dict(), CONFIG, "vibration")
        owner.api.services.request.get_by_uid(sy.UID(refused.value.request_id)).approve()
        first = client.train(model, Wear(4).state_dict(), CONFIG, "vibration", timeout=240)
        onward = client.train(model, first.parameters, CONFIG, "vibration", timeout=240)
    assert ROWS == onward.samples
    assert onward.metrics["loss_before"] == pytest.approx(first.metrics["loss"], rel=1e-4)
    assert not any(torch.equal(one, onward.parameters[key]) for key, one in first.parameters.items())
