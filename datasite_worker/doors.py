"""Closes those of PySyft's public doors through which data could leave without the owner's approval.

PySyft 0.9.5 lets everybody, a guest without an account too, run any method of a data frame or array on the private
data of a dataset (``action.execute``). The result cannot be read; but a method may write files (``to_csv``), where the
caller can have them read back as a blob of his own, or overwrite what the datasite may write. So only those may run
methods who may see the data anyway. Approved code does not come this way.
"""

from __future__ import annotations

import functools
from typing import Any

from syft.service.action.action_object import ActionType
from syft.service.action.action_service import ActionService
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException

REFUSED = "This datasite runs no methods on data it keeps: submit a function for approval, or .get() a result first."
_TRUSTED = (ServiceRole.ADMIN, ServiceRole.DATA_OWNER)
_HARMLESS = (ActionType.CREATEOBJECT, ActionType.SYFTFUNCTION)
"""To store an object of one's own, and to run submitted code, which asks for approval itself."""


def close() -> None:
    """Once in a process, before anything is served; again is no harm."""
    if not hasattr(ActionService.execute, "closed"):
        ActionService.execute = _guarded(ActionService.execute)


def _guarded(execute: Any) -> Any:
    @functools.wraps(execute)
    def guarded(service: Any, context: Any, action: Any, *args: Any, **kwargs: Any) -> Any:
        if action.action_type not in _HARMLESS and context.role not in _TRUSTED:
            raise SyftException(public_message=REFUSED)
        return execute(service, context, action, *args, **kwargs)

    guarded.closed = True  # type: ignore[attr-defined]
    return guarded
