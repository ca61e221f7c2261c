"""Which kernel these tests need, how long they may take, and the group that each has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.unit import a_unit, obstacle
from tests.real.harness import PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs such a kernel; real processes get more time than pure functions."""
    why = obstacle()
    if why and os.environ.get("FLEET_TEST_KERNEL"):
        raise pytest.UsageError(f"this kernel was booted for these tests, and {why}")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(420 * PATIENCE))
            if why:
                item.add_marker(pytest.mark.skip(reason=f"{why}; scripts/kernel-test boots a kernel for it"))


@pytest.fixture
def unit() -> Iterator[Path]:
    with a_unit() as group:
        yield group
