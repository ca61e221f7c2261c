"""Fixtures of the real tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real.harness import Fleet, a_fleet


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real processes get more time than pure functions before a hang is called one, unless a test says how much."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(1500 if "slow" in item.keywords else 420))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for a file's tests."""
    with a_fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made
