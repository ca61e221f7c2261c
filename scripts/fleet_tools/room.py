"""A temporary folder for one run, and what was left behind in it: processes, ports, files. All of it ends here."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_tools.ports import listens
from fleet_tools.processes import end_all, listening


@contextmanager
def room(name: str, remains: list[str]) -> Iterator[Path]:
    """A folder that is removed afterwards. What had to be ended by force, or is still there, is added to ``remains``:
    that should be nothing."""
    folder = Path(tempfile.mkdtemp(prefix=f"fleet-{name}-")).resolve()
    try:
        yield folder
    finally:
        ports = listening(folder)
        remains += [f"{name}: {what}" for what in end_all(folder)]
        remains += [f"{name}: port {port}" for port in sorted(ports) if listens(port)]
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists():
            remains.append(f"{name}: {folder}")
