"""Unix socket addresses hold 107 bytes. A state folder may lie deeper; Linux reaches it by the folder's descriptor."""

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
        yield address_in(folder, path.name)
    finally:
        os.close(folder)


def address_in(folder: int, name: str) -> str:
    """The address of the socket ``name`` in the folder with that descriptor, valid while it is open."""
    return f"/proc/self/fd/{folder}/{name}"
