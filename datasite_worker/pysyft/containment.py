"""Wraps each execution of user code: records it while it runs, and confines ``sys.exit()`` and ``fork()`` to the call,
which PySyft does not. Names the kind of an error to the caller. Changes no result, and cannot prevent user code from
killing the process.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from syft.service.action import action_service
from syft.service.code import user_code
from syft.service.code.user_code import UserCodeExecutionOutput

from datasite_worker import mishaps
from datasite_worker.activity import Activity

logger = logging.getLogger(__name__)

Execute = Callable[[Any, dict[str, Any], Any], Any]


def contained(execute: Execute) -> Execute:
    """Wrap PySyft's ``execute_byte_code``: a function that exits like a program has failed, and a child that it forked
    ends when the function returns."""
    _note_errors()

    def execute_byte_code(code_item: Any, kwargs: dict[str, Any], context: Any) -> Any:
        pid = os.getpid()
        _noted.kind = ""
        try:
            output = _named(execute(code_item, kwargs, context), _noted.kind)
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


_noted = threading.local()
"""The kind of the error that user code raised last in this thread."""


def _note_errors() -> None:
    """PySyft keeps the error to itself, and asks this function for the text that its log gets."""
    original = getattr(user_code.traceback_from_error, "watched", user_code.traceback_from_error)

    def traceback_from_error(e: Exception, code: Any) -> Any:
        _noted.kind = mishaps.kind(e)
        return original(e, code)

    traceback_from_error.watched = original  # type: ignore[attr-defined]
    user_code.traceback_from_error = traceback_from_error


def _named(output: Any, kind: str) -> Any:
    """``output`` with the kind of its error in what the caller is told."""
    if kind and output.errored:
        output.safe_error_message = _with_kind(output.safe_error_message, kind)
        output.result.message = _with_kind(output.result.message, kind)
    return output


def _with_kind(message: str, kind: str) -> str:
    return message.replace(", please contact", f" ({kind}), please contact", 1)


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
