"""The description of what a user may call: packed once for all who get the same."""

from __future__ import annotations

import inspect
import threading
from typing import Any

import pytest
from syft import serialize
from syft.client.api import APIEndpoint, SyftAPI
from syft.types.uid import UID

from datasite_worker.data import files
from datasite_worker.pysyft import descriptions
from datasite_worker.pysyft.descriptions import MOST, Descriptions

pytestmark = pytest.mark.process  # it loads PySyft

SITE = UID()
SIGNATURE = inspect.signature(lambda x: x)


def endpoint(name: str, **more: Any) -> APIEndpoint:
    return APIEndpoint(
        service_path="code.call", module_path="code.call", name=name, description="", doc_string="",
        signature=more.pop("signature", SIGNATURE), has_self=False, **more,
    )  # fmt: skip


def api(*endpoints: APIEndpoint, protocol: int = 5) -> SyftAPI:
    known = {f"code.call_{one.name}": one for one in endpoints}
    return SyftAPI(
        server_name="site", server_uid=SITE, endpoints=known, lib_endpoints={}, communication_protocol=protocol
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[SyftAPI]:
    """What was packed."""
    packed: list[SyftAPI] = []

    def pack(one: SyftAPI, **how: Any) -> Any:
        packed.append(one)
        return serialize(one, **how)

    monkeypatch.setattr(descriptions, "serialize", pack)
    return packed


def test_it_is_packed_once_for_all_who_get_the_same(made: list[SyftAPI]) -> None:
    """And is what PySyft would have sent."""
    kept, first = Descriptions(), api(endpoint("train"))
    sent = [kept.packed(one, "ADMIN") for one in (first, api(endpoint("train")), api(endpoint("train")))]
    assert ([serialize(first, to_bytes=True)] * 3, 1) == (sent, len(made))


UID_1, UID_2 = UID(), UID()
OTHER = inspect.signature(lambda x, y: (x, y))
DIFFERENT = [
    (api(endpoint("train", pre_kwargs={"uid": UID_1})), "DATA_SCIENTIST"),
    (api(endpoint("train", pre_kwargs={"uid": UID_1})), "ADMIN"),
    (api(endpoint("train", pre_kwargs={"uid": UID_2})), "ADMIN"),
    (api(endpoint("train", pre_kwargs={"uid": UID_2}, signature=OTHER)), "ADMIN"),
    (api(endpoint("train", pre_kwargs={"uid": UID_2}), protocol=4), "ADMIN"),
    (api(endpoint("other", pre_kwargs={"uid": UID_2})), "ADMIN"),
    (api(), "ADMIN"),
]


def test_whoever_gets_another_gets_his_own(made: list[SyftAPI]) -> None:
    """By role, protocol, code and its signature; and only a few are kept."""
    kept = Descriptions()
    for one, role in DIFFERENT:
        assert serialize(one, to_bytes=True) == kept.packed(one, role)
    assert (len(DIFFERENT), MOST) == (len(made), len(kept._packed))


def test_none_is_kept_for_long(made: list[SyftAPI], monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory goes back after a while without logins."""
    over = threading.Event()
    monkeypatch.setattr(files, "give_back", over.set)
    kept = Descriptions(kept=0.05)
    kept.packed(api(), "ADMIN")
    assert over.wait(10)
    assert (1, 0) == (len(made), len(kept._packed))
