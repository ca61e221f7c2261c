"""Fixtures of the real tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.harness import Fleet, a_fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One fleet for a file's tests."""
    with a_fleet(tmp_path_factory.mktemp("fleet")) as made:
        yield made
