"""Datasets in PySyft's own stores: replaced as a whole, and read as a whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from syft.service.action.action_service import ActionService
from syft.service.context import AuthedServiceContext
from syft.service.policy import policy
from syft.service.policy.policy import MixedInputPolicy
from syft.types.uid import UID

from datasite_worker.credentials import Identity
from datasite_worker.data.store import Ids
from datasite_worker.engine import Hosting
from datasite_worker.pysyft import server as hosting
from datasite_worker.pysyft import wholeness
from datasite_worker.pysyft.datasets import PySyftDatasets

pytestmark = pytest.mark.process  # it loads PySyft

IDS = Ids(UID().no_dash, {"x": UID().no_dash, "y": UID().no_dash})
UIDS = {name: UID.from_string(asset) for name, asset in IDS.assets.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    who = Identity(UID().no_dash, "22" * 32, "root@example.com", "a-long-password")
    folder = tmp_path_factory.mktemp("datasets")
    made = hosting.make_server(Hosting("site", who, folder, dev_mode=False, auto_approval=True, sessions=1))
    wholeness.install()
    yield made
    made.close()


@pytest.fixture
def store(server: Any) -> PySyftDatasets:
    made = PySyftDatasets(server)
    put(made, 1.0)
    return made


def put(store: PySyftDatasets, value: float) -> None:
    content: Any = {name: np.full(3, value) for name in IDS.assets}
    store.put("two", f"version {value:g}", IDS, content, {name: np.zeros(2) for name in content})


def held(server: Any) -> list[float]:
    """What each array holds now."""
    found = (server.services.action.stash.get(uid, server.verify_key).unwrap() for uid in UIDS.values())
    return [float(twin.private_obj.syft_action_data[0]) for twin in found]


def description(server: Any) -> str:
    return str(
        server.services.dataset.stash.get_by_uid(server.verify_key, UID.from_string(IDS.dataset))
        .unwrap()
        .description.text
    )


def test_a_dataset_is_replaced_under_its_ids(server: Any, store: PySyftDatasets) -> None:
    """Data, mocks and description."""
    put(store, 2.0)
    assert ([2.0, 2.0], "version 2") == (held(server), description(server))


def test_what_fails_in_the_middle_changes_nothing(
    server: Any, store: PySyftDatasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the first array nor the description is new where the second cannot be stored."""
    update, left = type(server.services.action.stash).update, [1]

    def fail_second(stash: Any, *args: Any, **how: Any) -> Any:
        if not left:
            raise OSError("database or disk is full")
        left.pop()
        return update(stash, *args, **how)

    with monkeypatch.context() as patched:
        patched.setattr(type(server.services.action.stash), "update", fail_second)
        with pytest.raises(OSError, match="full"):
            put(store, 3.0)
    assert ([1.0, 1.0], "version 1") == (held(server), description(server))


def read_by_name(server: Any) -> Any:
    context = AuthedServiceContext(server=server, credentials=server.verify_key)
    return policy.retrieve_from_db(UIDS, context).unwrap()


def read_by_rules(server: Any) -> Any:
    rule = SimpleNamespace(requires_input=True, is_met=lambda *_: True)
    rules = SimpleNamespace(kwarg_rules={"here": dict.fromkeys(UIDS, rule)})
    context = AuthedServiceContext(server=server, credentials=server.verify_key)
    return MixedInputPolicy.filter_kwargs(rules, dict(UIDS), context)


@pytest.mark.parametrize("read", [read_by_name, read_by_rules])
def test_a_function_gets_all_its_inputs_of_one_version(
    server: Any, store: PySyftDatasets, monkeypatch: pytest.MonkeyPatch, read: Any
) -> None:
    """What is replaced after its first input was read waits until the last one was."""
    replaced, get = threading.Event(), ActionService._get
    writers: list[threading.Thread] = []

    def replace() -> None:
        put(store, 4.0)
        replaced.set()

    def get_and_replace(*args: Any, **how: Any) -> Any:
        found = get(*args, **how)
        if not writers:
            writers.append(threading.Thread(target=replace))
            writers[0].start()
            assert not replaced.wait(0.3)
        return found

    monkeypatch.setattr(ActionService, "_get", get_and_replace)
    found = read(server)
    writers[0].join(20)
    assert [1.0, 1.0] == [float(found[name].private_obj.syft_action_data[0]) for name in UIDS]
    assert [4.0, 4.0] == held(server)


def test_a_reader_that_does_not_end_is_not_waited_for(
    server: Any, store: PySyftDatasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped job, for example: publishing is tried again later, and what was published stays."""
    monkeypatch.setattr(wholeness, "PATIENCE", 0.05)
    with wholeness.reading(server), pytest.raises(TimeoutError):
        put(store, 5.0)
    assert [1.0, 1.0] == held(server)


def test_what_could_not_be_put_leaves_no_file(
    server: Any, store: PySyftDatasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further try would leave more of them."""
    forgotten: list[str] = []
    monkeypatch.setattr(wholeness, "PATIENCE", 0.05)
    monkeypatch.setattr(store, "forget", forgotten.extend)
    large: Any = {name: np.random.default_rng(1).random(300_000) for name in IDS.assets}
    with wholeness.reading(server), pytest.raises(TimeoutError):
        store.put("two", "large", IDS, large, {name: np.zeros(2) for name in large})
    assert 2 == len(forgotten)
