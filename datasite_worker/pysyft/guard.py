"""Checks each execution of user code on the data before it begins: the limits of fleet.yaml's approvals.

This is the one place where arguments and code are known and nothing has run yet. Wraps PySyft's ``execute_byte_code``
from outside, so that what is refused is not recorded as a training. Decides nothing itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from syft.service.action import action_service
from syft.service.action.action_object import TwinMode
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.uid import UID

from datasite_worker.approvals import Damaged, Record

Execute = Callable[[Any, dict[str, Any], Any], Any]


@dataclass(frozen=True, slots=True)
class Guard:
    """What one datasite checks."""

    record: Record

    def check(self, code: Any, arguments: dict[str, Any], context: Any) -> None:
        """Raises SyftException with why the code may not run."""
        if context.role is ServiceRole.ADMIN or context.has_execute_permissions:
            return  # the owner, and users on data of their own
        try:
            why = self.record.refusal(str(code.id), arguments.get("config"), time.time())
        except (Damaged, OSError) as error:
            why = f"this datasite cannot count its runs: {error}"
        if why:
            raise SyftException(public_message=f"{code.service_func_name} may not run: {why}")


_guards: dict[UID, Guard] = {}
_mock = threading.local()


def set_up(server: Any, record: Record) -> None:
    """Guard the executions of ``server``, in this process."""
    _guards[server.id] = Guard(record)
    if not hasattr(action_service.filter_twin_kwargs, "guarded"):
        action_service.filter_twin_kwargs = _remembering(action_service.filter_twin_kwargs)
    action_service.execute_byte_code = _guarded(action_service.execute_byte_code)


def _remembering(filter_twin_kwargs: Any) -> Any:
    """PySyft executes a function on the data and then on the mock, and does not say which is which."""

    def remembering(kwargs: Any, twin_mode: TwinMode, allow_python_types: bool = False) -> Any:
        found = filter_twin_kwargs(kwargs, twin_mode=twin_mode, allow_python_types=allow_python_types)
        if twin_mode is TwinMode.MOCK:
            _mock.arguments = found.unwrap()
        return found

    remembering.guarded = True  # type: ignore[attr-defined]
    return remembering


def _guarded(execute: Execute) -> Execute:
    unguarded: Execute = getattr(execute, "unguarded", execute)

    def execute_byte_code(code_item: Any, kwargs: dict[str, Any], context: Any) -> Any:
        guard = _guards.get(context.server.id) if context.server is not None else None
        if guard is not None and not _is_mock(kwargs):
            guard.check(code_item, kwargs, context)
        return unguarded(code_item, kwargs, context)

    execute_byte_code.unguarded = unguarded  # type: ignore[attr-defined]
    return execute_byte_code


def _is_mock(arguments: dict[str, Any]) -> bool:
    found = arguments is getattr(_mock, "arguments", None)
    if found:
        _mock.arguments = None  # a model may be large
    return found
