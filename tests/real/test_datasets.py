"""Local data, for real: what a data scientist and a guest see of it, what crosses the wire, and what approved code gets."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.real.harness import Fleet, answers, eventually

PASSWORD = "correct-horse-9"
TORQUE = 77123.25
WEAR = 31337.5
NAME = "Secretariat"
SECRETS = (
    NAME.encode(),
    b"Privatissimum",
    str(TORQUE).encode(),
    str(WEAR).encode(),
    struct.pack("<d", TORQUE),
    struct.pack("<d", WEAR),
)


class DataFleet(Fleet):
    """A fleet whose line alpha has a table and arrays; a third dataset's file is not there yet."""

    datasets = (
        "[{name: bearings, path: data/line_a.csv, description: Torque of the bearings},"
        " {name: wear, path: data/wear.npz, mock: {rows: 7}}, {name: later, path: data/later.parquet}]"
    )

    def write(self) -> None:
        self.file.write_text(
            f"version: 1\nname: test\ndashboard: {{mode: embedded, port: {self.dashboard}}}\n"
            f"defaults: {{access: {{allow_guests: true}}}}\ndatasites:\n  - name: alpha\n    port: {self.alpha}\n    datasets: {self.datasets}\n"
        )

    def table(self, rows: int) -> None:
        """Written as a careful writer does: beside it, then renamed."""
        frame = pd.DataFrame({"torque": [TORQUE] * rows, "operator": [NAME] * rows})
        frame.to_csv(self.folder / "data" / "part", index=False)
        (self.folder / "data" / "part").rename(self.folder / "data" / "line_a.csv")

    def said(self, name: str) -> dict[str, Any]:
        """What everybody may read of a dataset."""
        told = answers(self.alpha) or {"datasets": []}
        return next((one for one in told["datasets"] if one["name"] == name), {})

    def scientist(self, port: int = 0) -> Any:
        import syft as sy

        email = "scientist@plant.example.com"
        return sy.login(url="http://127.0.0.1", port=port or self.alpha, email=email, password=PASSWORD)

    def guest(self) -> Any:
        import syft as sy

        return sy.login_as_guest(url="http://127.0.0.1", port=self.alpha)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataFleet]:
    """Up, with everything published that can be, and an account for a data scientist."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "data").mkdir()
    made = DataFleet(folder)
    made.table(3)
    np.savez(folder / "data" / "wear.npz", depth=np.full((200_000, 3), WEAR), label=np.array(["Privatissimum", "b"]))
    try:
        made.up()
        eventually(lambda: made.said("bearings").get("published_at") and made.said("wear").get("published_at"))
        admin = made.login("alpha", made.alpha)
        admin.register(name="S", email="scientist@plant.example.com", password=PASSWORD, password_verify=PASSWORD)
        yield made
    finally:
        made.down()


def test_a_dataset_is_there_at_start_with_its_mock(plant: DataFleet) -> None:
    """A data scientist sees names, descriptions and mocks; the data is not theirs."""
    scientist = plant.scientist()
    assert ["bearings", "wear"] == sorted(one.name for one in scientist.datasets)
    bearings = scientist.datasets["bearings"]
    assert "Torque of the bearings" == bearings.description.text
    mock = bearings.assets["bearings"].mock
    assert (["torque", "operator"], 100) == (list(mock.columns), len(mock))
    assert ["float64", "object"] == [str(kind) for kind in mock.dtypes]
    wear = scientist.datasets["wear"].assets
    assert {"depth": (7, 3), "label": (7,)} == {one.name: one.mock.shape for one in wear}
    assert [None, None, None] == [one.data for one in (bearings.assets["bearings"], *wear)]


def test_everybody_may_read_the_status_so_it_tells_little(plant: DataFleet) -> None:
    """Names and problems; no path, no size. An absent file is told, and the line serves."""
    assert {"name": "later", "published_at": None, "problem": "the file does not exist"} == plant.said("later")
    assert {"name", "published_at", "problem"} == set(plant.said("bearings"))
    line = plant.line("alpha")
    assert ("ready", 3) == (line["state"], len(line["datasets"]))
    told = plant.run("events").stdout
    assert all(one in told for one in ("dataset bearings published", "dataset later: the file does not exist"))


class Recorder:
    """A TCP proxy to ``port`` that keeps every byte."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.bytes = bytearray()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError), near, far:
            while chunk := near.recv(65536):
                self.bytes += chunk
                far.sendall(chunk)
            far.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listening.close()


@contextmanager
def recorded(plant: DataFleet) -> Iterator[Recorder]:
    recorder = Recorder(plant.alpha)
    try:
        yield recorder
    finally:
        recorder.close()


def test_nothing_private_crosses_the_wire(plant: DataFleet) -> None:
    """Log in, list, fetch mocks, try to get the data: of the private values no byte leaves the datasite. The recorder
    would see them: an administrator, who may read the data, is the proof."""
    with recorded(plant) as wire:
        scientist = plant.scientist(wire.port)
        for dataset in scientist.datasets:
            for asset in dataset.assets:
                assert (True, None) == (len(asset.mock) > 0, asset.data)
                assert "" != repr(asset.pointer) + asset._repr_html_()
        assert len(wire.bytes) > 10_000
        assert [] == [secret for secret in SECRETS if secret in wire.bytes]
    with recorded(plant) as wire:
        admin = plant.login("alpha", wire.port)
        assert [TORQUE] * 3 == list(admin.datasets["bearings"].assets["bearings"].data["torque"])
        assert NAME.encode() in wire.bytes


def refusal(does: Callable[[], Any]) -> str:
    """What PySyft says when it refuses; empty when it does not."""
    from syft.types.errors import SyftException

    try:
        does()
    except SyftException as refused:
        return str(refused.public_message)
    return ""


@pytest.mark.parametrize("who", ["scientist", "guest"])
def test_no_public_door_leads_to_the_data(plant: DataFleet, who: str) -> None:
    """Neither the object by its id in any form, nor the file that it is kept in, nor a method run on it."""
    from syft.service.action.action_object import ActionObject, TwinMode

    from datasite_worker.pysyft.doors import REFUSED

    client = getattr(plant, who)()
    services = client.api.services
    if who == "guest":
        shut = ("action.get", "action.set", "action.execute", "code.submit", "request.submit", "blob_storage.allocate")
        assert [] == [path for path in shut if has(services, path)]
        assert 100 == len(client.datasets["bearings"].assets["bearings"].mock)
        return
    for asset in (client.datasets["bearings"].assets["bearings"], client.datasets["wear"].assets["depth"]):
        get: Callable[..., Any] = partial(services.action.get, asset.action_id)
        told = [
            refusal(door) for door in [*(partial(get, mode) for mode in TwinMode), partial(get, resolve_nested=False)]
        ]
        assert ["Item not found."] * 4 == told
        other = ActionObject.from_obj(1, id=asset.action_id)
        other.syft_action_saved_to_blob_store = False
        assert "" != refusal(partial(services.action.set, other))
        assert REFUSED == refusal(partial(run_method, client, asset.action_id, "to_csv", plant.folder / who))
    assert [] == list(plant.folder.glob(f"**/{who}"))
    forbidden = (
        "blob_storage.get_all",
        "action.delete",
        "dataset.delete",
        "migration.get_migration_data",
        "sync._get_state",
    )
    assert [] == [path for path in forbidden if has(services, path)]
    admin = plant.login("alpha", plant.alpha)
    assert TORQUE * 3 == admin.datasets["bearings"].assets["bearings"].data["torque"].sum()


def run_method(client: Any, uid: Any, method: str, path: Path) -> None:
    """What a client that is not PySyft's own can send: run a method of the object, with a path for its result."""
    from syft.service.action.action_object import Action, ActionObject, ActionType
    from syft.types.uid import UID, LineageID

    where = ActionObject.from_obj(str(path))
    where.syft_action_saved_to_blob_store = False
    client.api.services.action.set(where)
    action = Action(
        path="", op=method, remote_self=LineageID(uid), args=[LineageID(where.id)], kwargs={}, result_id=UID(),
        action_type=ActionType.METHOD,
    )  # fmt: skip
    client.api.services.action.execute(action)


def has(services: Any, path: str) -> bool:
    try:
        for step in path.split("."):
            services = getattr(services, step)
    except AttributeError:
        return False
    return True


def test_approved_code_computes_with_the_new_rows(plant: DataFleet) -> None:
    """The file changes, the asset keeps its id, the approval holds: blocking and queued, the same function sees the new
    rows."""
    import syft as sy

    scientist = plant.scientist()
    asset = scientist.datasets["bearings"].assets["bearings"]

    @sy.syft_function(input_policy=sy.ExactMatch(df=asset), output_policy=sy.SingleExecutionExactOutput())
    def total(df):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        return float(df["torque"].sum())

    scientist.code.request_code_execution(total)
    plant.login("alpha", plant.alpha).requests[-1].approve()
    assert TORQUE * 3 == scientist.code.total(df=asset).get()
    at = plant.said("bearings")["published_at"]
    plant.table(5)
    eventually(lambda: plant.said("bearings")["published_at"] != at)
    assert asset.action_id == scientist.datasets["bearings"].assets["bearings"].action_id
    assert TORQUE * 5 == scientist.code.total(df=asset).get()
    job = scientist.code.total(df=asset, blocking=False)
    assert TORQUE * 5 == job.wait(timeout=120).get()


def test_a_killed_line_publishes_nothing_twice(plant: DataFleet) -> None:
    """An unchanged file keeps its ids and its time through SIGKILL."""
    ids = {one.name: one.assets[0].action_id for one in plant.scientist().datasets}
    before, told = plant.line("alpha"), plant.said("wear")
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: (line := plant.line("alpha"))["state"] == "ready" and line["pid"] != before["pid"])
    eventually(lambda: plant.said("later").get("problem"))
    assert told == plant.said("wear")
    assert ids == {one.name: one.assets[0].action_id for one in plant.scientist().datasets}
    assert 1 == plant.log("alpha").count("dataset wear: published")


def test_a_file_that_comes_later_is_published_and_one_that_breaks_is_not(plant: DataFleet) -> None:
    """The last good version stays."""
    pd.DataFrame({"x": [1.5, 2.5]}).to_parquet(plant.folder / "data" / "later.parquet")
    eventually(lambda: plant.said("later").get("published_at"))
    assert "" == plant.said("later")["problem"]
    (plant.folder / "data" / "wear.npz").write_bytes(b"half a file")
    eventually(lambda: plant.said("wear")["problem"])
    assert plant.said("wear")["problem"].startswith("not a readable NPZ file")
    assert {"depth", "label"} == {one.name for one in plant.scientist().datasets["wear"].assets}


def test_what_fleet_yaml_no_longer_lists_is_taken_back_live(plant: DataFleet) -> None:
    """No restart; others stay, under the ids they have."""
    before = plant.line("alpha")
    asset = plant.scientist().datasets["bearings"].assets["bearings"]
    plant.datasets = "[{name: bearings, path: data/line_a.csv, mock: empty, description: Torque}]"
    plant.write()
    reload = plant.run("reload")
    assert 0 == reload.returncode, reload.stdout + reload.stderr
    eventually(lambda: [one.name for one in plant.scientist().datasets] == ["bearings"])
    eventually(lambda: plant.scientist().datasets["bearings"].description.text == "Torque")
    now = plant.scientist().datasets["bearings"].assets["bearings"]
    assert (asset.action_id, 0, before["pid"]) == (now.action_id, len(now.mock), plant.line("alpha")["pid"])
