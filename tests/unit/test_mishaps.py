"""What the caller of a function is told of its error: a kind, and no word of the error's own."""

from __future__ import annotations

import pytest

from datasite_worker.mishaps import kind


class OutOfMemoryError(RuntimeError):
    """Torch's own, by its text."""


class Row4711(ValueError):
    """A class whose name tells data."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError("4711"), "out of memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 4711 MiB"), "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 4711 bytes"), "out of memory"),
        (KeyError("row 4711"), "missing column or key"),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied (16x3 and 5x1)"), "shape mismatch"),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4711)"), "shape mismatch"),
        (IndexError("Dimension out of range: dimension 4711"), "shape mismatch"),
        (ValueError("Expected more than 1 value per channel when training"), "shape mismatch"),
        (ValueError("cannot convert float NaN to integer"), "not finite"),
        (FloatingPointError("4711"), "not finite"),
        (ZeroDivisionError("4711"), "ZeroDivisionError"),
        (Row4711("4711"), "ValueError"),
        (RuntimeError("4711"), "RuntimeError"),
    ],
)
def test_the_kind_of_an_error_holds_none_of_its_text(error: Exception, expected: str) -> None:
    """Whatever the error says, and whatever its class is called."""
    assert expected == kind(error)
