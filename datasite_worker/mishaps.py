"""The kind of an error that user code raised, in words that hold no data. Pure.

The caller of a function is told this kind and nothing else of the error: its text may contain data.
"""

from __future__ import annotations

import builtins
import re

_OUT_OF_MEMORY = re.compile(r"out of memory|allocate memory", re.IGNORECASE)
_SHAPE = re.compile(
    r"shape|size of tensor|sizes of tensors|size mismatch|dimension|invalid for input of size|per channel"
)
_NOT_FINITE = re.compile(r"\b(nan|inf|infinity|not finite|non-finite)\b", re.IGNORECASE)


def kind(error: BaseException) -> str:
    """One of a few words, or the name of one of Python's own exceptions."""
    text = str(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(text)):
        return "out of memory"
    if isinstance(error, KeyError):
        return "missing column or key"
    if isinstance(error, RuntimeError | ValueError | IndexError) and _SHAPE.search(text):
        return "shape mismatch"
    if isinstance(error, FloatingPointError) or (isinstance(error, ValueError) and _NOT_FINITE.search(text)):
        return "not finite"
    return _of_python(type(error))


def _of_python(cls: type[BaseException]) -> str:
    """User code can give a class of its own any name."""
    return next((one.__name__ for one in cls.__mro__ if getattr(builtins, one.__name__, None) is one), "Exception")
