"""Which datasites have been ready before, so that a lost folder is not taken for a new datasite. Two copies: one in the
state folder, one in the log folder. The second still knows when the whole state folder is empty, because its disk is
not mounted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fleet_common import state_files
from supervisor.spec import FleetConfig

log = logging.getLogger("fleet")

FILE = "known-datasites.json"
"""In the log folder. Several fleets may share one, so it is by state folder."""


class EmptyState(Exception):
    """The state folder of a fleet that has run before is empty."""

    def __init__(self, state_dir: Path, names: Iterable[str], file: Path) -> None:
        self.state_dir, self.names, self.file = state_dir, tuple(sorted(names)), file
        before = f"but this fleet has had datasites there: {', '.join(self.names)}"
        super().__init__(f"the state folder {state_dir} is missing or empty, {before}")


class Known:
    """Call it from one thread."""

    def __init__(self, config: FleetConfig) -> None:
        self._copies = (config.state.history.known, config.log_dir / FILE)
        self._folder = os.path.realpath(config.state_dir)
        self._names = {name for copy in self._copies for name in _read(copy).get(self._folder, ())}
        self._names -= {name for name in self._names if _is_given_up(config, name)}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str) -> None:
        """It is ready, so it has state to lose."""
        if name not in self._names:
            self._names.add(name)
            self._write()

    def forget(self, names: Iterable[str]) -> None:
        """Their state is removed on purpose."""
        if gone := self._names & set(names):
            self._names -= gone
            self._write()

    def _write(self) -> None:
        for copy in self._copies:
            document = {**_read(copy), self._folder: sorted(self._names)}
            try:
                state_files.write(copy, {"version": 1, "datasites": document})
            except OSError as error:
                log.warning("%s cannot be written (%s): a datasite whose folder is lost would look new", copy, error)


def _is_given_up(config: FleetConfig, name: str) -> bool:
    """Whether it is neither in fleet.yaml nor on the disk."""
    listed = any(spec.name == name for spec in config.datasites)
    return not listed and not config.state.worker(name).root.exists()


def refuse_empty(config: FleetConfig) -> None:
    """Raises EmptyState when a fleet has left nothing in the state folder, and datasites of ``config`` have been there.

    Writes nothing: what is written below a mount point is hidden once the disk is mounted.
    """
    if config.state.history.root.exists() or config.state.datasites.exists():
        return
    file = config.log_dir / FILE
    before = set(_read(file).get(os.path.realpath(config.state_dir), ()))
    if lost := before & {spec.name for spec in config.datasites if not spec.reset}:
        raise EmptyState(config.state_dir, lost, file)


@dataclass(frozen=True, slots=True)
class _Copy:
    datasites: dict[str, list[str]]


def _read(path: Path) -> dict[str, list[str]]:
    """The names by state folder; empty where nothing can be read."""
    found = state_files.read(path, _Copy)
    return found.datasites if isinstance(found, _Copy) else {}
