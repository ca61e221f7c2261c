"""Real messages, each damaged a little, sent to a real datasite: by nobody, and signed anew by a data scientist."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

import numpy as np
import pandas as pd
import psutil
import pytest
import syft as sy
from syft import serialize
from syft.client.api import SignedSyftAPICall
from syft.client.client import HTTPConnection

from datasite_worker.pysyft import envelope
from tests.real.attacks import Caller
from tests.real.harness import Alone, eventually
from tests.real.test_open_doors import admin, closed_site, scientist_of

GROWTH = 48 * 1024 * 1024
"""Bytes that a datasite may have grown by: what it keeps of its first calls, and of the log of what it refused."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Alone]:
    with closed_site(tmp_path_factory.mktemp("site")) as made:
        yield made


@pytest.fixture(scope="module")
def messages(site: Alone) -> list[bytes]:
    """What honest clients send: an upload of every kind of data, code with annotations, approval, calls, a job."""
    seen: list[bytes] = []
    sends = HTTPConnection.make_call

    def recorded(connection: Any, call: Any) -> Any:
        seen.append(serialize(call, to_bytes=True))
        return sends(connection, call)

    HTTPConnection.make_call = recorded
    try:
        uses(admin(site), scientist_of(site.port))
    finally:
        HTTPConnection.make_call = sends
    assert 10 < len(seen)
    return seen


def uses(owner: Any, scientist: Any) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
    arrays = [np.arange(6.0).reshape(2, 3), np.array(["ab", "c"])]
    data = [("frame", frame, frame), *((f"array{n}", one, one) for n, one in enumerate(arrays))]
    assets = [sy.Asset(name=name, data=real, mock=mock) for name, real, mock in data]
    owner.upload_dataset(sy.Dataset(name="things", asset_list=assets))
    asset = scientist.datasets["things"].assets["frame"]

    policies = {"input_policy": sy.ExactMatch(df=asset), "output_policy": sy.SingleExecutionExactOutput()}

    @sy.syft_function(**policies)  # type: ignore[untyped-decorator]  # PySyft has no types
    def total(df, scale: Optional[float] = 1.0):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, UP045 - PySyft ships its source
        return float(df["a"].sum()) * (scale or 1.0)

    scientist.code.request_code_execution(total)
    owner.requests[-1].approve()
    assert 3.0 == scientist.code.total(df=asset).get()
    assert 3.0 == scientist.code.total(df=asset, blocking=False).wait(timeout=120).get()


def damaged(message: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """A few bytes changed, a piece cut out, doubled, or taken from another message; at word boundaries mostly, where
    the pointers of its structure are."""
    made = bytearray(message)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(0, max(1, len(made) - 8)) & ~(7 if chance.random() < 0.7 else 0)
        match chance.randrange(6):
            case 0:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                made[at : at + 8] = chance.randbytes(8)
            case 2:
                made[at : at + 8] = (1 << chance.randrange(64)).to_bytes(8, "little")
            case 3:
                del made[at : at + 8 * chance.randint(1, 8)]
            case 4:
                made[at:at] = made[at : at + 8 * chance.randint(1, 64)]
            case _:
                other = chance.choice(others)
                made[at : at + 64] = other[at : at + 64]
    return bytes(made)


def mutations(messages: list[bytes], key: Any, chance: random.Random) -> Iterator[bytes]:
    inner = [envelope.read(one).message for one in messages]
    while True:
        yield damaged(chance.choice(messages), messages, chance)
        message = damaged(chance.choice(inner), inner, chance)
        signed = key.signing_key.sign(message)
        call = SignedSyftAPICall(credentials=key.verify_key, serialized_message=message, signature=signed.signature)
        yield serialize(call, to_bytes=True)


def files(site: Alone) -> set[Path]:
    """Every file of the datasite's that is not its database, its log, or the blob of an upload."""
    kept = {path for path in site.folder.rglob("*") if path.is_file()}
    return {path for path in kept if ".db" not in path.name and "blob" not in str(path) and path.suffix != ".log"}


@pytest.mark.parametrize("how_many", [500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_damaged_messages_leave_nothing(site: Alone, messages: list[bytes], how_many: int) -> None:
    """No file, no process, no open file or connection, no growth; every one is answered; the datasite goes on."""
    scientist = scientist_of(site.port)
    caller = Caller(site.port)
    process = psutil.Process(site.process.pid if site.process else 0)
    stream = mutations(messages, scientist.credentials, random.Random(11))
    chosen = [next(stream) for _ in range(how_many)]
    answers: set[int] = set()
    born = {one.pid for one in process.children(recursive=True)}
    with ThreadPoolExecutor(4) as threads:
        answers |= set(threads.map(lambda one: caller.ask("POST", "/api/v2/api_call", one)[0], chosen[:200]))
        before = files(site), process.num_fds()
        size = process.memory_info().rss
        answers |= set(threads.map(lambda one: caller.ask("POST", "/api/v2/api_call", one)[0], chosen[200:]))
    grown = process.memory_info().rss - size
    eventually(lambda: process.num_fds() <= before[1] + 4)
    # A queued call that the damage has left whole is a job, which ends.
    eventually(lambda: {one.pid for one in process.children(recursive=True)} == born)
    assert set() == files(site) - before[0]
    assert answers <= {200, 400, 413}
    assert {200, 400} <= answers
    assert grown < GROWTH
    assert ["things"] == [one.name for one in scientist.api.services.dataset.get_all()]
    assert not list(Path.cwd().glob("uuid*"))
