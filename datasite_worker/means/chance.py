"""Random numbers of a forked process.

NumPy's and PyTorch's generators are copied by a fork: all datasites and all jobs would draw the same numbers, and noise
that is to hide data would cancel out. Python's own generator sees to it itself.
"""

from __future__ import annotations

import numpy as np
import torch


def draw_afresh() -> None:
    """Seed both from the system's randomness, as a program that starts does. Touches no GPU: those have generators of
    their own, made when they are first used."""
    np.random.seed()
    torch.default_generator.seed()
