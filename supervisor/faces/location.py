"""Where a fleet lives, read from ``fleet.yaml`` without validating it.

``fleet status`` and ``fleet stop`` must work while somebody's edit has broken the file, or where the secrets that it
names are not in the environment. So they read only the folders and the names, and where the file
says nothing, what its running supervisor has noted. ``supervisor.config`` judges whole files. Nothing here starts or
changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from supervisor.effects.places import Place, read_place, running
from supervisor.spec import DASHBOARD_NAME, DashboardSpec, DatasiteSpec, FleetConfig

NAME = "fleet"
STATE_DIR = ".fleet"
LOG_DIR = "logs"


@dataclass(frozen=True, slots=True)
class FleetLocation:
    """Paths are absolute. ``ports`` are those of the datasites, by name, in the file's order; None: not readable."""

    path: Path
    fleet: str
    state_dir: Path
    log_dir: Path
    ports: Mapping[str, int | None]
    dashboard: bool

    @property
    def names(self) -> list[str]:
        """Every supervised name."""
        return [*self.ports, *([DASHBOARD_NAME] if self.dashboard else [])]

    def unjudged(self) -> FleetConfig:
        """Enough of a fleet to stop what is left of it: names and folders; everything else is the default."""
        return FleetConfig(
            name=self.fleet,
            path=self.path,
            state_dir=self.state_dir,
            log_dir=self.log_dir,
            datasites=tuple(DatasiteSpec(name, port or 0) for name, port in self.ports.items()),
            dashboard=DashboardSpec() if self.dashboard else None,
        )


def locate(path: Path, environ: Mapping[str, str]) -> FleetLocation:
    """The place that ``path`` describes. Raises ConfigError when the file names no folders."""
    values = _read(path)
    if values is None or any(_needs_judging(values.get(key)) for key in ("name", "state_dir", "log_dir")):
        return _from_whole_file(path, environ)
    base = path.absolute().parent
    return FleetLocation(
        path=path.absolute(),
        fleet=values.get("name") or NAME,
        state_dir=base / (values.get("state_dir") or STATE_DIR),
        log_dir=base / (values.get("log_dir") or LOG_DIR),
        ports=_ports(values.get("datasites")),
        dashboard=values.get("dashboard") is not None,
    )


def last_good(path: Path) -> FleetLocation | None:
    """Where the fleet of ``path`` lives, for a file that cannot be read: by a supervisor that listens, else by what
    one left in the default state folder."""
    known = running(path)
    if known is None and (place := read_place(path.absolute().parent / STATE_DIR)):
        known = (path.absolute().parent / STATE_DIR, place)
    return None if known is None or not known[1].is_of(path) else _by_place(path, *known)


def elsewhere(location: FleetLocation) -> FleetLocation | None:
    """Where the supervisor of the same file listens, if that is another state folder than the file names."""
    known = running(location.path, location.state_dir)
    return None if known is None else _by_place(location.path, *known)


def _by_place(path: Path, state_dir: Path, place: Place) -> FleetLocation:
    return FleetLocation(
        path=path.absolute(),
        fleet=place.fleet,
        state_dir=state_dir,
        log_dir=Path(place.log_dir),
        ports=place.ports,
        dashboard=place.dashboard,
    )


def _needs_judging(value: Any) -> bool:
    """Whether a value is not plain text: a reference into the environment, or a mistake."""
    return value is not None and (not isinstance(value, str) or "$" in value or value.startswith("~"))


def _read(path: Path) -> dict[str, Any] | None:
    """The file's mapping; None when only a full load can say what is wrong."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        values = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506 - safe loaders both; this one is the quick one
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _ports(entries: Any) -> dict[str, int | None]:
    sound = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return {
        str(entry["name"]): entry["port"] if isinstance(entry.get("port"), int) else None
        for entry in sound
        if entry.get("name")
    }


def _from_whole_file(path: Path, environ: Mapping[str, str]) -> FleetLocation:
    from supervisor.config import load

    config = load(path, environ)
    return FleetLocation(
        path=config.path,
        fleet=config.name,
        state_dir=config.state_dir,
        log_dir=config.log_dir,
        ports={spec.name: spec.port for spec in config.datasites},
        dashboard=config.dashboard is not None,
    )
