"""Puts datasets into PySyft's stores and takes them out again, as the datasite's root. Decides nothing.

An asset's data is replaced under the id that it has: approved code names its inputs by that id, and goes on working
with what is there now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

from syft.service.action.action_object import ActionObject
from syft.service.action.action_permissions import ActionObjectPermission, ActionPermission
from syft.service.context import AuthedServiceContext
from syft.service.dataset.dataset import Asset, Contributor, Dataset
from syft.service.user.user_roles import ServiceRole
from syft.types.datetime import DateTime
from syft.types.errors import SyftException
from syft.types.twin_object import TwinObject
from syft.types.uid import UID

from datasite_worker.data.files import Content
from datasite_worker.data.store import Held, Ids

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
        """Make the dataset so, whatever was there under these ids."""
        for asset, content in data.items():
            self._put_twin(UID.from_string(ids.assets[asset]), content, mocks[asset])
        self._put_dataset(name, description, ids, mocks)

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
                parts = (twin.private_obj, twin.mock_obj)
                found += [part.syft_blob_storage_entry_id.no_dash for part in parts if part.syft_blob_storage_entry_id]
        return found

    def forget(self, blobs: Iterable[str]) -> None:
        """Remove such files."""
        for blob in blobs:
            with contextlib.suppress(SyftException):
                self._server.services.blob_storage.delete(self._root, uid=UID.from_string(blob))

    def _put_twin(self, uid: UID, data: Any, mock: Any) -> None:
        twin = TwinObject(
            id=uid,
            private_obj=ActionObject.from_obj(data),
            mock_obj=ActionObject.from_obj(mock),
            syft_server_location=self._server.id,
            syft_client_verify_key=self._server.verify_key,
        )
        twin._save_to_blob_storage().unwrap()
        self._server.services.action._set(self._root, twin).unwrap()

    def _put_dataset(self, name: str, description: str, ids: Ids, mocks: Mapping[str, Any]) -> None:
        stash, uid, key = self._server.services.dataset.stash, UID.from_string(ids.dataset), self._server.verify_key
        assets = [self._asset(asset, ids.assets[asset], mocks[asset]) for asset in mocks]
        made = Dataset(
            id=uid,
            name=name,
            description=description,
            asset_list=assets,
            uploader=self._uploader(),
            created_at=DateTime.now(),
            server_uid=self._server.id,
        )
        if stash.exists(key, uid):
            stash.update(key, made).unwrap()
        else:
            readable = ActionObjectPermission(uid=uid, permission=ActionPermission.ALL_READ)
            stash.set(key, made, add_permissions=[readable]).unwrap()

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
