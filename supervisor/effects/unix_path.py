"""Unix socket addresses hold 107 bytes; a state folder may lie deeper.

Linux reaches any of them through a folder's fd."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LONGEST = 107


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """An address for ``bind`` and ``connect`` that names ``path`` and fits, valid inside the ``with``."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
