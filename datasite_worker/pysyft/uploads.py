"""Finds PySyft calls that store something, and refuses them while the disk is nearly full.

``means.limits`` decides whether it is. Refuses nothing else, and changes no stored data.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)

UPLOADS = frozenset(
    {
        "action.np_array",
        "action.set",
        "api.add",
        "api.update",
        "blob_storage.allocate",
        "blob_storage.allocate_for_user",
        "blob_storage.write_to_disk",
        "code.request_code_execution",
        "code.submit",
        "code.update",
        "code_history.submit_version",
        "dataset.add",
        "migration.apply_migration_data",
        "migration.create_migrated_objects",
        "policy.add",
        "project.add_event",
        "project.create_project",
        "project.sync",
        "sync.sync_items",
    }
)
"""PySyft's calls that store something. Running approved code is not among them: a training may store its result."""


def _refusal(why: str) -> Any:
    """PySyft's own kind of error, which its client raises with these words."""
    from syft.service.response import SyftError

    return SyftError(message=why)


def guard(server: Any, refuses: Callable[[int], str], refusal: Callable[[str], Any] = _refusal) -> None:
    """Have ``server`` answer uploads with a ``refusal`` when ``refuses`` gives a reason against so many bytes, before
    PySyft touches its database."""
    handle = server.handle_api_call_with_unsigned_result

    def guarded(api_call: Any, job_id: Any = None, check_call_location: bool = True) -> Any:
        why = ""
        if job_id is None and getattr(api_call, "is_valid", False) and _is_upload(api_call):
            why = refuses(_size(api_call.message))
        if why:
            logger.warning("refused %s: %s", api_call.message.path, why)
            return refusal(why)
        return handle(api_call, job_id=job_id, check_call_location=check_call_location)

    server.handle_api_call_with_unsigned_result = guarded


def _is_upload(api_call: Any) -> bool:
    return api_call.message.path in UPLOADS


def _size(message: Any) -> int:
    """Bytes that the call announces or carries; 0 when it is not the kind that does."""
    for value in (*message.args, *message.kwargs.values()):
        size = len(value) if isinstance(value, bytes) else getattr(value, "file_size", 0)
        if isinstance(size, int) and size > 0:
            return size
    return 0
