"""Random numbers of a forked process.

NumPy's and PyTorch's generators are copied by a fork: all datasites and all jobs would draw the same numbers, and noise
that is meant to hide data would cancel out. Python's own generator reseeds itself.
"""

from __future__ import annotations

import numpy as np
import torch


def draw_afresh() -> None:
    """Seed both from the system's randomness, as at the start of a program. Touches no GPU: GPUs have their own
    generators, made at first use."""
    np.random.seed()
    torch.default_generator.seed()
