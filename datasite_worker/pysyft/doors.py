"""Closes the parts of PySyft's public API through which data could leave without the owner's approval.

PySyft 0.9.5 lets everybody, a guest without an account too, run any method of a data frame or array on the private
data of a dataset (``action.execute``). The result cannot be read. But a method may write a file (``to_csv``) that the
caller then reads back as an upload, or that overwrites the datasite's own files. So only users who may see the data
may run methods. Approved code does not use this call.
"""

from __future__ import annotations

import functools
from typing import Any

from syft.service.action.action_object import ActionType
from syft.service.action.action_service import ActionService
from syft.service.blob_storage.service import BlobStorageService
from syft.service.user.user_roles import ServiceRole
from syft.types.blob_storage import BlobFile
from syft.types.errors import SyftException

from datasite_worker.pysyft import decoding

REFUSED = "This datasite runs no methods on its data. Submit a function for approval, or call .get() on a result first."
NO_FILES = "This datasite does not read files for a client. Upload them with ActionObject.from_path(...).send(client)."
_LONGEST_ENDING = 32
_TRUSTED = (ServiceRole.ADMIN, ServiceRole.DATA_OWNER)
_HARMLESS = (ActionType.CREATEOBJECT, ActionType.SYFTFUNCTION)
"""Allowed for everybody: to store an own object, and to run submitted code, which checks approval itself."""


def close() -> None:
    """Once in a process, before anything is served; again is no harm."""
    decoding.install()
    BlobFile._upload_to_blobstorage_from_api = _reads_no_files
    if not hasattr(ActionService.execute, "closed"):
        ActionService.execute = _guarded(ActionService.execute)
        BlobStorageService.allocate = _flat(BlobStorageService.allocate)


def _reads_no_files(_file: BlobFile, _api: Any) -> None:
    """A file object from a client names a file of the client. PySyft would read the datasite's file of that name."""
    raise SyftException(public_message=NO_FILES)


def _flat(allocate: Any) -> Any:
    """The sender chooses the extension of the stored file. It must not lead to another folder."""

    @functools.wraps(allocate)
    def allocated(service: Any, context: Any, *args: Any, **kwargs: Any) -> Any:
        obj = args[0] if args else kwargs["obj"]
        if any("/" in ending or "\0" in ending or len(ending) > _LONGEST_ENDING for ending in obj.extensions):
            raise SyftException(public_message=f"Not a valid file extension: {obj.extensions}")
        return allocate(service, context, *args, **kwargs)

    return allocated


def _guarded(execute: Any) -> Any:
    @functools.wraps(execute)
    def guarded(service: Any, context: Any, action: Any, *args: Any, **kwargs: Any) -> Any:
        if action.action_type not in _HARMLESS and context.role not in _TRUSTED:
            raise SyftException(public_message=REFUSED)
        return execute(service, context, action, *args, **kwargs)

    guarded.closed = True  # type: ignore[attr-defined]
    return guarded
