"""Keeps the unit tests, which share one process, apart; and the pure ones pure."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"}
_pure: list[str] = []
"""The test that runs, when it says of itself that it starts no process."""


def _no_process(event: str, arguments: tuple[object, ...]) -> None:
    if _pure and event in _STARTS:
        raise AssertionError(f"{_pure[0]} starts a process ({event}): mark it with pytest.mark.process")


sys.addaudithook(_no_process)


@pytest.fixture(autouse=True)
def purity(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that starts a process is marked ``process``, else `scripts/check --fast` would not stay fast."""
    _pure[:] = [] if "process" in request.node.keywords else [request.node.nodeid]
    yield
    _pure.clear()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """PySyft silences the root logger of a process that makes a server; the tests after it still have to hear."""
    yield
    logging.getLogger().setLevel(logging.WARNING)
