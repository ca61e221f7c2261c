"""Where running fleets live, for commands whose ``fleet.yaml`` is missing, broken, or names another folder by now.

The supervisor keeps a file in its state folder. A command finds state folders in the kernel's list of sockets: each
supervisor listens on one there. So nothing has to be registered, and nothing stale is left behind.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet_common import folders, state_files
from fleet_common.layout import StateFolder
from fleet_common.untrusted import Port
from supervisor.spec import FleetConfig

_SOCKETS = Path("/proc/net/unix")


@dataclass(frozen=True, slots=True)
class Place:
    """What a supervisor was last started or reloaded with. ``ports``: those of the datasites, by name."""

    file: str
    fleet: str
    log_dir: str
    ports: dict[str, Port]
    dashboard: bool

    def is_of(self, file: Path) -> bool:
        return self.file == _real(file)


def write_place(config: FleetConfig) -> None:
    """On a full disk nothing is written: only commands that cannot read their file miss it."""
    ports = {spec.name: spec.port for spec in config.datasites}
    place = Place(_real(config.path), config.name, str(config.log_dir), ports, config.dashboard is not None)
    with contextlib.suppress(OSError):
        state_files.write(config.state.place, asdict(place), lasting=False)


def read_place(state_dir: Path) -> Place | None:
    """None where there is none that we can read and trust."""
    try:
        folders.check(state_dir)
    except OSError:
        return None
    found = state_files.read(StateFolder(state_dir).place, Place)
    return found if isinstance(found, Place) else None


def running(file: Path, but: Path | None = None, sockets: Path = _SOCKETS) -> tuple[Path, Place] | None:
    """The state folder whose supervisor was started with ``file`` and listens there; None when there is none, or when
    a supervisor listens in the folder ``but``."""
    found = _state_folders(sockets)
    if but is not None and _real(but) in map(_real, found):
        return None
    places = ((folder, read_place(folder)) for folder in found)
    return next(((folder, place) for folder, place in places if place and place.is_of(file)), None)


def listens(state_dir: Path, sockets: Path = _SOCKETS) -> bool:
    """Whether a supervisor of that folder runs, also when somebody has removed its socket or the whole folder."""
    return _real(state_dir) in map(_real, _state_folders(sockets))


def _state_folders(sockets: Path) -> list[Path]:
    """A state folder with a path too long for a socket's address does not appear: its supervisor binds another name."""
    name = StateFolder(Path()).control_socket.name
    try:
        lines = sockets.read_bytes().splitlines()[1:]
    except OSError:
        return []
    columns = (line.split(maxsplit=7) for line in lines)
    paths = (Path(os.fsdecode(found[7])) for found in columns if len(found) == 8)
    return sorted({path.parent for path in paths if path.name == name and path.is_absolute()})


def _real(path: Path) -> str:
    return os.path.realpath(path)
