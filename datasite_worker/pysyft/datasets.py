"""Puts datasets into PySyft's stores and takes them out again, as the datasite's root. Decides nothing.

An asset's data is replaced under the id that it has: approved code names its inputs by that id, and goes on working
with what is there now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from syft.service.action.action_object import ActionObject
from syft.service.action.action_permissions import (
    ActionObjectEXECUTE,
    ActionObjectPermission,
    ActionObjectWRITE,
    ActionPermission,
)
from syft.service.context import AuthedServiceContext
from syft.service.dataset.dataset import Asset, Contributor, Dataset
from syft.service.user.user_roles import ServiceRole
from syft.store.db.stash import ObjectStash
from syft.types.datetime import DateTime
from syft.types.errors import SyftException
from syft.types.twin_object import TwinObject
from syft.types.uid import UID

from datasite_worker.data.files import Content
from datasite_worker.data.store import Held, Ids
from datasite_worker.pysyft import wholeness

_OURS = "fleet.yaml"
"""The role of the uploader of what was made here."""


class PySyftDatasets:
    """PySyft's stores, as far as datasets are concerned: a ``DatasetStore``."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._root = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)

    def holds(self, name: str) -> Held | None:
        """The dataset that bears the name; None when there is none."""
        stash = self._server.services.dataset.stash
        for found in stash.get_all_active(self._server.verify_key, filters={"name": name}).unwrap():
            assets = {asset.name: str(asset.action_id.no_dash) for asset in found.asset_list}
            return Held(Ids(str(found.id.no_dash), assets), found.uploader.role == _OURS)
        return None

    def put(self, name: str, description: str, ids: Ids, data: Content, mocks: Content) -> None:
        """Make the dataset so, whatever was there under these ids: all of it, or nothing."""
        twins: list[TwinObject] = []
        try:
            for asset, content in data.items():
                twins.append(self._twin(UID.from_string(ids.assets[asset]), content, mocks[asset]))
            self._put_all(twins, self._dataset(name, description, ids, mocks))
        except BaseException:
            self._forget_unused(twins, ids)
            raise

    def _put_all(self, twins: list[TwinObject], made: Dataset) -> None:
        """In one transaction, while nobody reads: see ``wholeness``."""
        stash = self._server.services.action.stash
        with wholeness.replacing(self._server), stash.sessionmaker() as session, session.begin():
            for twin in twins:
                self._put_twin(twin, session)
            self._put_dataset(made, session)

    def _forget_unused(self, twins: list[TwinObject], ids: Ids) -> None:
        """The files of what could not be put: each further try makes new ones."""
        used = self.blobs(ids.assets.values())
        self.forget(blob for twin in twins for blob in _blobs(twin) if blob not in used)

    def remove(self, ids: Ids) -> None:
        """Dataset and data are gone afterwards, or were before."""
        self.drop(ids.assets.values())
        service = self._server.services.dataset
        with contextlib.suppress(SyftException):
            if not service.get_by_id(self._root, uid=UID.from_string(ids.dataset)).to_be_deleted:
                service.delete(self._root, uid=UID.from_string(ids.dataset), delete_assets=False)

    def drop(self, assets: Iterable[str]) -> None:
        """Data that a dataset no longer has."""
        for asset in assets:
            self.forget(self.blobs([asset]))
            with contextlib.suppress(SyftException):
                self._server.services.action.stash.delete_by_uid(
                    self._server.verify_key, UID.from_string(asset)
                ).unwrap()

    def blobs(self, assets: Iterable[str]) -> list[str]:
        """The files in which PySyft keeps these assets, by id; small ones have none."""
        found = []
        for asset in assets:
            with contextlib.suppress(SyftException):
                twin = self._server.services.action.stash.get(UID.from_string(asset), self._server.verify_key).unwrap()
                found += _blobs(twin)
        return found

    def forget(self, blobs: Iterable[str]) -> None:
        """Remove such files."""
        for blob in blobs:
            with contextlib.suppress(SyftException):
                self._server.services.blob_storage.delete(self._root, uid=UID.from_string(blob))

    def _twin(self, uid: UID, data: Any, mock: Any) -> TwinObject:
        """Data and mock, with their files if they are large. Nobody sees them yet."""
        twin = TwinObject(
            id=uid,
            private_obj=ActionObject.from_obj(data),
            mock_obj=ActionObject.from_obj(mock),
            syft_server_location=self._server.id,
            syft_client_verify_key=self._server.verify_key,
        )
        twin._save_to_blob_storage().unwrap()
        for part in (twin.private_obj, twin.mock_obj):
            part.syft_created_at = DateTime.now()
            if part.syft_action_saved_to_blob_store:
                part._clear_cache()
        if twin.mock_obj.syft_action_saved_to_blob_store:
            readable = ActionObjectPermission(twin.mock_obj.syft_blob_storage_entry_id, ActionPermission.ALL_READ)
            self._server.services.blob_storage.stash.add_permission(readable)
        return twin

    def _put_twin(self, twin: TwinObject, session: Any) -> None:
        """As PySyft's ``set_or_update``, which has a transaction of its own for each object."""
        stash, key = self._server.services.action.stash, self._server.verify_key
        if stash.exists(key, twin.id, session=session):
            stash.update(key, twin, session=session).unwrap()
        else:
            own = [of(uid=twin.id, credentials=key) for of in (ActionObjectWRITE, ActionObjectEXECUTE)]
            ObjectStash.set(stash, key, twin, add_permissions=own, session=session).unwrap()

    def _put_dataset(self, made: Dataset, session: Any) -> None:
        stash, key = self._server.services.dataset.stash, self._server.verify_key
        if stash.exists(key, made.id, session=session):
            stash.update(key, made, session=session).unwrap()
        else:
            readable = ActionObjectPermission(uid=made.id, permission=ActionPermission.ALL_READ)
            stash.set(key, made, add_permissions=[readable], session=session).unwrap()

    def _dataset(self, name: str, description: str, ids: Ids, mocks: Mapping[str, Any]) -> Dataset:
        return Dataset(
            id=UID.from_string(ids.dataset),
            name=name,
            description=description,
            asset_list=[self._asset(asset, ids.assets[asset], mocks[asset]) for asset in mocks],
            uploader=self._uploader(),
            created_at=DateTime.now(),
            server_uid=self._server.id,
        )

    def _asset(self, name: str, action_id: str, mock: Any) -> Asset:
        """Its shape is the mock's: that of the data is not for everybody."""
        return Asset(
            id=UID.from_string(action_id),
            action_id=UID.from_string(action_id),
            server_uid=self._server.id,
            name=name,
            shape=tuple(mock.shape),
            uploader=self._uploader(),
            created_at=DateTime.now(),
        )

    def _uploader(self) -> Contributor:
        return Contributor(name="fleet", role=_OURS, email="fleet@fleet.example.com")


def _blobs(twin: TwinObject) -> list[str]:
    parts = (twin.private_obj, twin.mock_obj)
    return [part.syft_blob_storage_entry_id.no_dash for part in parts if part.syft_blob_storage_entry_id]
