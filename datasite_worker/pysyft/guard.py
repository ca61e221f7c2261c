"""Checks each execution of user code on the data before it begins, and bounds what a training gives out.

Two things are checked: the limits of fleet.yaml's approvals, and the owner's bounds for trainings. This is the one
place where arguments and code are known and nothing has run yet. Wraps PySyft's ``execute_byte_code`` from outside, so
that what is refused is not recorded as a training. ``approvals`` and ``training_bounds`` decide; this only asks them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from syft.service.action import action_service
from syft.service.action.action_object import TwinMode
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.uid import UID

from datasite_worker import training_bounds
from datasite_worker.approvals import Damaged, Record
from datasite_worker.pysyft.approvals import reads_of
from datasite_worker.training_bounds import Unbounded
from fleet_common.contract import AnyBounds, TrainingBounds

logger = logging.getLogger(__name__)

Execute = Callable[[Any, dict[str, Any], Any], Any]


@dataclass(frozen=True, slots=True)
class Guard:
    """What one datasite checks."""

    server: Any
    record: Record
    bounds: AnyBounds

    def execute(self, execute: Execute, code: Any, arguments: dict[str, Any], context: Any) -> Any:
        """Run the code within the owner's limits. Raises SyftException with why it may not run."""
        held = self._bounds(code, arguments, context)
        arguments = _with_columns(held, arguments)
        rows = self._begin(held, code, arguments)
        received = _received(code, arguments) if held else {}
        self._count(code, arguments, context)
        if not held:
            return execute(code, arguments, context)
        noise = self._noise(code, arguments if any(one.noise for one in held.values()) else {})
        output = execute(code, arguments, context)
        for one in () if output.errored else held.values():
            output.result = _bounded(code, output.result, received, one, rows, noise)
        return output

    def _noise(self, code: Any, arguments: dict[str, Any]) -> Any:
        inputs = (code.raw_code.rstrip(), *(arguments[key] for key in sorted(arguments)))
        return training_bounds.noise_of(bytes(self.server.signing_key.signing_key), *inputs)

    def on_mock(self, execute: Execute, code: Any, arguments: dict[str, Any], context: Any) -> Any:
        """Everybody may see the mock."""
        return execute(code, _with_columns(self._bounds(code, arguments, context), arguments), context)

    def _bounds(self, code: Any, arguments: dict[str, Any], context: Any) -> dict[str, TrainingBounds]:
        """The bounds that hold, by dataset; none for code that is no training, and on data of the user's own."""
        own = context.has_execute_permissions and context.role is not ServiceRole.ADMIN
        if own or not training_bounds.is_training(arguments):
            return {}
        return training_bounds.of(self.bounds, {dataset for dataset, _ in reads_of(self.server, code)})

    def _begin(self, held: dict[str, TrainingBounds], code: Any, arguments: dict[str, Any]) -> int:
        rows = training_bounds.rows_of(arguments) if held else 0
        for dataset, bounds in held.items():
            if why := training_bounds.refusal(bounds, arguments["config"], rows):
                logger.info("refused: %s, by the bounds of the dataset %s: %s", code.service_func_name, dataset, why)
                raise _refused(code, f"the owner's bounds for the dataset {dataset} refuse it: {why}")
        return rows

    def _count(self, code: Any, arguments: dict[str, Any], context: Any) -> None:
        if context.role is ServiceRole.ADMIN or context.has_execute_permissions:
            return  # the owner, and users on data of their own
        try:
            why = self.record.refusal(str(code.id), arguments.get("config"), time.time())
        except (Damaged, OSError) as error:
            logger.error("%s was refused, because its runs cannot be counted: %s", code.service_func_name, error)
            why = "this datasite cannot count its runs; its log says why"
        if why:
            raise _refused(code, why)


def _with_columns(held: dict[str, TrainingBounds], arguments: dict[str, Any]) -> dict[str, Any]:
    for bounds in held.values():
        arguments = {**arguments, "config": training_bounds.filled(bounds, arguments["config"])}
    return arguments


def _received(code: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return training_bounds.copied(arguments["parameters"])
    except Unbounded as error:
        raise _refused(code, str(error)) from error


def _bounded(code: Any, result: Any, received: Any, bounds: TrainingBounds, rows: int, noise: Any) -> Any:
    try:
        return training_bounds.bounded(result, received, bounds, rows, noise)
    except Unbounded as error:
        raise SyftException(public_message=f"the result of {code.service_func_name} may not leave: {error}") from error


def _refused(code: Any, why: str) -> SyftException:
    return SyftException(public_message=f"{code.service_func_name} may not run: {why}")


_guards: dict[UID, Guard] = {}
_mock = threading.local()


def set_up(server: Any, record: Record, bounds: AnyBounds) -> None:
    """Guard the executions of ``server``, in this process."""
    _guards[server.id] = Guard(server, record, bounds)
    if not hasattr(action_service.filter_twin_kwargs, "guarded"):
        action_service.filter_twin_kwargs = _remembering(action_service.filter_twin_kwargs)
    action_service.execute_byte_code = _guarded(action_service.execute_byte_code)


def use(server: Any, bounds: AnyBounds) -> None:
    """Other bounds, from the next execution on."""
    _guards[server.id] = replace(_guards[server.id], bounds=bounds)


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
        if guard is None:
            return unguarded(code_item, kwargs, context)
        how = guard.on_mock if _is_mock(kwargs) else guard.execute
        return how(unguarded, code_item, kwargs, context)

    execute_byte_code.unguarded = unguarded  # type: ignore[attr-defined]
    return execute_byte_code


def _is_mock(arguments: dict[str, Any]) -> bool:
    found = arguments is getattr(_mock, "arguments", None)
    if found:
        _mock.arguments = None  # a model may be large
    return found
