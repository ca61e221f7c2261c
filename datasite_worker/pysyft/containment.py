"""Wraps each execution of user code: records it while it runs, and confines ``sys.exit()`` and ``fork()`` to the call,
which PySyft does not. Changes no result, and cannot prevent user code from killing the process.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from syft.service.action import action_service
from syft.service.code import user_code
from syft.service.code.user_code import UserCodeExecutionOutput

from datasite_worker.activity import Activity

logger = logging.getLogger(__name__)

Execute = Callable[[Any, dict[str, Any], Any], Any]


def contained(execute: Execute) -> Execute:
    """Wrap PySyft's ``execute_byte_code``: a function that exits like a program has failed, and a child that it forked
    ends when the function returns."""

    def execute_byte_code(code_item: Any, kwargs: dict[str, Any], context: Any) -> Any:
        pid = os.getpid()
        try:
            output = execute(code_item, kwargs, context)
            code = int(output.errored)
        except Exception:
            code = 1
            raise
        except BaseException as error:  # noqa: BLE001 - the function ends here, not the thread that serves
            code = _exit_code(error)
            output = _failed(code_item, error) if os.getpid() == pid else None
        finally:
            if os.getpid() != pid:
                os._exit(code)
        return output

    return execute_byte_code


def _exit_code(error: BaseException) -> int:
    """As Python would end by it."""
    code = error.code if isinstance(error, SystemExit) else 1
    return 0 if code is None else code & 0xFF if isinstance(code, int) else 1


def _failed(code_item: Any, error: BaseException) -> UserCodeExecutionOutput:
    """The caller learns as little as of any exception in PySyft: its text may contain data."""
    name = code_item.service_func_name
    logger.warning("%s ended by raising %s: %s", name, type(error).__name__, error)
    said = f"Exception encountered while running {name}, please contact the Server Admin for more info."
    return UserCodeExecutionOutput(
        user_code_id=code_item.id, stdout="", stderr="", result=None, errored=True, safe_error_message=said
    )


def watch(activity: Activity) -> None:
    """Record every execution of user code in this process, in the ``activity`` given last."""
    original = getattr(user_code.execute_byte_code, "watched", user_code.execute_byte_code)
    execute = contained(original)

    def execute_byte_code(code_item: Any, kwargs: dict[str, Any], context: Any) -> Any:
        with activity.running(str(code_item.service_func_name)) as completed:
            output = execute(code_item, kwargs, context)
            if not output.errored:
                completed()
            return output

    execute_byte_code.watched = original  # type: ignore[attr-defined]
    # The second module imported the function by name.
    user_code.execute_byte_code = action_service.execute_byte_code = execute_byte_code
