"""User code that ends like a program, or forks: kept inside of its call."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from syft.types.uid import UID

from datasite_worker.pysyft.containment import contained

pytestmark = pytest.mark.process


@dataclass(frozen=True)
class Code:
    id: UID
    service_func_name: str = "train"


@dataclass(frozen=True)
class Output:
    result: Any
    errored: bool = False


def call(function: Callable[[], Any]) -> Any:
    """As PySyft executes it, but that exceptions pass."""
    return contained(lambda _code, _kwargs, _context: Output(function()))(Code(UID()), {}, None)


def raising(error: BaseException) -> Callable[[], Any]:
    def function() -> None:
        raise error

    return function


def test_a_result_passes_as_it_is() -> None:
    """And so does an exception, with which PySyft deals itself."""
    assert Output(3) == call(lambda: 3)
    with pytest.raises(ZeroDivisionError):
        call(raising(ZeroDivisionError()))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), BaseException("of the data: 4711")])
def test_what_ends_a_program_is_a_failure_of_the_function(error: BaseException) -> None:
    """The caller is told as of any exception, and none of its words."""
    output = call(raising(error))
    said = "Exception encountered while running train, please contact the Server Admin for more info."
    assert (True, None, said) == (output.errored, output.result, output.safe_error_message)


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        (lambda: None, 0),
        (raising(SystemExit(3)), 3),
        (raising(SystemExit()), 0),
        (raising(SystemExit("gone")), 1),
        (raising(KeyboardInterrupt()), 1),
        (raising(ValueError("no")), 1),
    ],
)
def test_a_forked_child_ends_where_it_comes_back(ends: Callable[[], Any], code: int) -> None:
    """It never goes on as a second copy of what called the function; its exit status is what Python's would be."""

    def function() -> int:
        child = os.fork()
        if child == 0:
            ends()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if child else 0

    assert Output(code) == call(function)
