"""Keeps what user code does to its own thread of control inside of its call: of ``sys.exit()`` and the like, and of
``fork()``, PySyft knows nothing. Looks at no result, and holds nobody back who ends the process itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from syft.service.code.user_code import UserCodeExecutionOutput

logger = logging.getLogger(__name__)

Execute = Callable[[Any, dict[str, Any], Any], Any]


def contained(execute: Execute) -> Execute:
    """PySyft's ``execute_byte_code``, so that a function that ends like a program has failed, and a child that it has
    forked ends where it comes back."""

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
    """The caller learns no more than PySyft tells of an exception: its words may hold data."""
    name = code_item.service_func_name
    logger.warning("%s ended by raising %s: %s", name, type(error).__name__, error)
    said = f"Exception encountered while running {name}, please contact the Server Admin for more info."
    return UserCodeExecutionOutput(
        user_code_id=code_item.id, stdout="", stderr="", result=None, errored=True, safe_error_message=said
    )
