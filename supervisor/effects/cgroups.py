"""A control group for each line, where a service manager has delegated ours to us: its kill reaches every process.

Without a delegated cgroup v2 nothing is done here; process groups and leashes do the work alone then.
"""

from __future__ import annotations

import os
from pathlib import Path

_MOUNTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_MARKS = ("trusted.delegate", "user.delegate")
"""systemd sets these extended attributes on a group that it has delegated (systemd.resource-control(5))."""


class Cgroups:
    """``own``: the folder of the delegated group; None: there is none."""

    def __init__(self, own: Path | None) -> None:
        self._own = own

    @classmethod
    def find(cls) -> Cgroups:
        """Our own group, if it was delegated to us and can be written."""
        own = _own_group()
        return cls(own if own is not None and _is_delegated(own) else None)

    def make(self, name: str) -> str:
        """The group of that line, made if absent; empty when there is none."""
        if self._own is None:
            return ""
        folder = self._folder(self._own, name)
        try:
            folder.mkdir(exist_ok=True)
        except OSError:
            return ""
        return str(folder)

    def end(self, name: str) -> None:
        """Kill whatever is left in the line's group, and remove it."""
        if self._own is None:
            return
        folder = self._folder(self._own, name)
        try:
            (folder / "cgroup.kill").write_text("1")
            folder.rmdir()
        except OSError:
            return  # never made, or what was killed is still going: the next line of that name uses it again

    @staticmethod
    def _folder(own: Path, name: str) -> Path:
        return own / f"line-{name}"


def _own_group() -> Path | None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    mount = next((mount for mount in _MOUNTS if (mount / "cgroup.procs").exists()), None)
    if path is None or mount is None:
        return None
    return mount / path


def _is_delegated(group: Path) -> bool:
    return any(_attribute(group, mark) == b"1" for mark in _MARKS) and os.access(group, os.W_OK)


def _attribute(group: Path, name: str) -> bytes:
    try:
        return os.getxattr(group, name)
    except OSError:
        return b""
