"""Datasets on their way from fleet.yaml to the worker; and who may run methods on the data."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syft.service.action.action_object import ActionType
from syft.service.action.action_service import ActionService
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException

from datasite_worker.pysyft import doors
from fleet_common.contract import DatasetOrder, LaunchOrder, LiveSettings
from fleet_common.state_files import LARGEST
from fleet_common.untrusted import Unfit, decoded
from supervisor.policy.launching import launch_order, live_settings
from supervisor.spec import Dataset, DatasiteSpec, Mock
from tests.unit.fakes import fleet

pytestmark = pytest.mark.process  # it loads PySyft

LINE = DatasiteSpec(
    "alpha",
    8080,
    datasets=(
        Dataset("bearings", Path("/data/a.csv"), description="Vibration"),
        Dataset("wear", Path("/data/b.npz"), Mock("file", path=Path("/data/mock.npz"))),
        Dataset("all", Path("/data/c.parquet"), Mock(rows=None)),
    ),
)
ORDERS = (
    DatasetOrder("bearings", "/data/a.csv", "Vibration"),
    DatasetOrder("wear", "/data/b.npz", mock="file", mock_path="/data/mock.npz"),
    DatasetOrder("all", "/data/c.parquet", mock_rows=None),
)


def received(raw: bytes) -> tuple[DatasetOrder, ...] | Unfit:
    """The datasets that a worker finds in its settings."""
    settings = decoded(raw, LiveSettings, LARGEST)
    return settings.datasets if isinstance(settings, LiveSettings) else Unfit("no settings")


def test_datasets_cross_to_the_worker() -> None:
    """At its start, and again while it runs, as JSON."""
    order = launch_order(fleet(LINE), LINE, 1, 2)
    assert isinstance(order, LaunchOrder)
    assert ORDERS == order.settings.datasets
    assert ORDERS == received(live_settings(fleet(LINE), LINE, 3).to_json())


@pytest.mark.parametrize("broken", ["x", ["x"], [{"name": "a"}], [None], 3])
def test_what_are_no_datasets_is_refused(broken: Any) -> None:
    """A newer supervisor's keys are passed over, an older one's settings have none."""
    settings = json.loads(live_settings(fleet(LINE), LINE, 3).to_json())
    newer = [{**asdict(one), "colour": "green"} for one in ORDERS]
    assert ORDERS == received(json.dumps({**settings, "datasets": newer}).encode())
    older = {key: value for key, value in settings.items() if key != "datasets"}
    assert () == received(json.dumps(older).encode())
    assert isinstance(received(json.dumps({**settings, "datasets": broken}).encode()), Unfit)


@pytest.mark.parametrize(
    "role", [ServiceRole.GUEST, ServiceRole.DATA_SCIENTIST, ServiceRole.DATA_OWNER, ServiceRole.ADMIN]
)
def test_who_may_run_methods_on_data(role: ServiceRole) -> None:
    """Those who may see it. Submitted code, and storing one's own objects, are everybody's as before."""
    ran: list[ActionType] = []
    guarded = doors._guarded(lambda _service, _context, action: ran.append(action.action_type))

    def told(kind: ActionType) -> str:
        try:
            guarded(None, SimpleNamespace(role=role), SimpleNamespace(action_type=kind))
        except SyftException as refused:
            return str(refused.public_message)
        return ""

    refused = [kind for kind in ActionType if told(kind) == doors.REFUSED]
    free = {ActionType.CREATEOBJECT, ActionType.SYFTFUNCTION}
    trusted = role in (ServiceRole.ADMIN, ServiceRole.DATA_OWNER)
    assert (set() if trusted else set(ActionType) - free) == set(refused)
    assert len(ActionType) == len(refused) + len(ran)


@pytest.mark.parametrize(("endings", "taken"), [([".csv"], True), ([], True), (["/../x"], False), (["." * 99], False)])
def test_an_upload_does_not_choose_its_folder(endings: list[str], taken: bool) -> None:
    """Its sender names the ending of its file, and nothing else; what else PySyft hands over passes."""
    seen: list[Any] = []
    allocate = doors._flat(lambda _service, _context, *args, **kwargs: seen.append((args, kwargs)))
    asked = SimpleNamespace(extensions=endings)
    for args, kwargs in (((asked,), {}), ((), {"obj": asked, "communication_protocol": 5})):
        with contextlib.suppress(SyftException):
            allocate(None, None, *args, **kwargs)
    assert ([((asked,), {}), ((), {"obj": asked, "communication_protocol": 5})] if taken else []) == seen


def test_the_door_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many datasites there are in a process."""
    monkeypatch.setattr(ActionService, "execute", ActionService.execute)
    doors.close()
    closed = ActionService.execute
    doors.close()
    assert (True, closed) == (closed.closed, ActionService.execute)
