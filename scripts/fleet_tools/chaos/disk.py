"""Small disks that can be filled up: a tmpfs each, where this user may mount one.

Mounts nothing outside the folder it is given, and takes away what it mounted.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from pathlib import Path

from fleet_tools.chaos.world import Nothing

_FILLER = ".filler"
_CHUNK = 1024 * 1024


class Disk:
    """``path``: the folder to use, a disk of its own unless ``why_not`` says why there is none."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        path.mkdir(mode=0o700, parents=True)
        self.why_not = _mount(path, megabytes)

    def fill(self) -> None:
        """Leave no byte. Raises Nothing where it is not a disk of its own."""
        if self.why_not:
            raise Nothing(self.why_not)
        filler = os.open(self.path / _FILLER, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            _write_until_full(filler)
        finally:
            os.close(filler)

    def free(self) -> None:
        (self.path / _FILLER).unlink(missing_ok=True)

    def close(self, keep_in: Path | None = None) -> None:
        """Take the disk away; what is on it is kept in ``keep_in``, if one is given."""
        self.free()
        if self.why_not:
            return
        if keep_in is not None:
            shutil.copytree(self.path, keep_in, symlinks=True, dirs_exist_ok=True, ignore=_sockets)
        subprocess.run(["umount", "--lazy", str(self.path)], check=False, capture_output=True)


def _write_until_full(filler: int) -> None:
    for size in (_CHUNK, 4096, 1):
        with contextlib.suppress(OSError):
            while True:
                os.write(filler, b"\0" * size)


def _sockets(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if (Path(folder) / name).is_socket()]


def _mount(path: Path, megabytes: int) -> str:
    """Why there is no disk; empty when there is one."""
    if os.geteuid() != 0:
        return f"a disk of its own needs root ({os.strerror(errno.EPERM)})"
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "chaos", str(path)]
    try:
        made = subprocess.run(command, check=False, capture_output=True, text=True)
    except OSError as error:
        return f"mount cannot be run: {error.strerror}"
    return "" if made.returncode == 0 else f"no disk could be mounted: {made.stderr.strip()}"
