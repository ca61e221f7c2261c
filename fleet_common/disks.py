"""How much space a disk has left, in words for people. Looks only."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_MB = 10**6
_LOW = 256 * 1024


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes, and whether there are files to be had: a disk with space may have no free inode."""

    free: int
    size: int
    no_inodes: bool = False

    @classmethod
    def of(cls, folder: Path) -> Space:
        """The disk of ``folder``. Raises OSError."""
        seen = os.statvfs(folder)
        return cls(seen.f_bavail * seen.f_frsize, seen.f_blocks * seen.f_frsize, seen.f_files > 0 and not seen.f_favail)

    @property
    def is_low(self) -> bool:
        """Whether an error of the disk is probably want of space: SQLite gives it several names."""
        return self.free < _LOW or self.no_inodes

    def __str__(self) -> str:
        inodes = ", no free inodes" if self.no_inodes else ""
        return f"{_megabytes(self.free)} of {_megabytes(self.size)} MB free{inodes}"


def _megabytes(count: int) -> str:
    return f"{count / _MB:.0f}" if count >= _MB else f"{count / _MB:.1f}".replace("0.0", "0")
