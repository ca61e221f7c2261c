"""A temporary folder for one run. Ends and reports what the run left behind: processes, ports, files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_tools.keeper import kept
from fleet_tools.ports import listens
from fleet_tools.processes import end_all, listening


@contextmanager
def room(name: str, remains: list[str]) -> Iterator[Path]:
    """A folder that is removed afterwards. What had to be killed or still exists is added to ``remains``, which
    should stay empty."""
    folder = Path(tempfile.mkdtemp(prefix=f"fleet-{name}-")).resolve()
    with kept(folder, remove=True):
        try:
            yield folder
        finally:
            ports = listening(folder)
            remains += [f"{name}: {what}" for what in end_all(folder)]
            remains += [f"{name}: port {port}" for port in sorted(ports) if listens(port)]
            shutil.rmtree(folder, ignore_errors=True)
            if folder.exists():
                remains.append(f"{name}: {folder}")
