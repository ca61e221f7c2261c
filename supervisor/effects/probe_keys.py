"""The secret that shows a worker that a probe comes from its supervisor. The worker makes it and stores it.

Read once and cached, so that no probe waits for a disk; read again after a launch, or when the worker rejects it.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet_common.layout import WorkerFolder


class ProbeKeyFiles:
    """``folder_of`` gives a worker's state folder."""

    def __init__(self, folder_of: Callable[[str], WorkerFolder]) -> None:
        self._folder_of = folder_of
        self._kept: dict[str, str] = {}

    def of(self, name: str) -> str:
        """The key of the worker of that name; empty while it has none."""
        if name not in self._kept:
            try:
                self._kept[name] = self._folder_of(name).probe_key.read_text().strip()
            except (OSError, ValueError):
                return ""
        return self._kept[name]

    def forget(self, name: str) -> None:
        """The worker may have made another."""
        self._kept.pop(name, None)
