"""Which kernel these tests need, how long they may take, and the group that each has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.unit import a_unit, obstacle
from tests.real.harness import PATIENCE


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this folder needs such a kernel; real processes get more time than pure functions."""
    why = obstacle()
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(420 * PATIENCE), append=False)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture
def unit() -> Iterator[Path]:
    with a_unit() as group:
        yield group
