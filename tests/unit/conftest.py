"""Keeps the unit tests, which share one process, apart."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """PySyft silences the root logger of a process that makes a server; the tests after it still have to hear."""
    yield
    logging.getLogger().setLevel(logging.WARNING)
