"""Random numbers after a fork."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from datasite_worker.means import chance

pytestmark = pytest.mark.process


def drawn_by_child(begin: Callable[[], object]) -> tuple[str, ...]:
    """What a process forked from here draws first, of Python's, NumPy's and PyTorch's generators."""
    ours, theirs = os.pipe()
    if (child := os.fork()) == 0:
        begin()
        os.write(theirs, f"{random.random()} {np.random.random()} {torch.rand(1, dtype=torch.float64).item()}".encode())
        os._exit(0)
    os.close(theirs)
    os.waitpid(child, 0)
    with os.fdopen(ours) as told:
        return tuple(told.read().split())


def test_no_two_forked_processes_draw_the_same() -> None:
    """Of none of the three; without being told to, they would of two."""
    first, second = drawn_by_child(chance.draw_afresh), drawn_by_child(chance.draw_afresh)
    assert [True] * 3 == [one != other for one, other in zip(first, second, strict=True)]
    first, second = drawn_by_child(lambda: None), drawn_by_child(lambda: None)
    assert [True, False, False] == [one != other for one, other in zip(first, second, strict=True)]


def test_our_own_numbers_go_on() -> None:
    """A child that draws afresh changes nothing here."""
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    drawn_by_child(chance.draw_afresh)
    assert expected.tolist() == torch.rand(2).tolist()
