"""What every command starts from: which ``fleet.yaml``, where its fleet lives, and a client of its supervisor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import typer

from supervisor.faces.faults import Exit, Fault, unknown_name
from supervisor.faces.formatting import clean
from supervisor.faces.screen import Screen

if TYPE_CHECKING:
    from supervisor.config import ConfigError
    from supervisor.faces.client import ControlClient
    from supervisor.faces.location import FleetLocation
    from supervisor.spec import FleetConfig


@dataclass(frozen=True)
class Options:
    """The options before the command."""

    file: Path | None = None
    no_color: bool = False


def options(context: typer.Context) -> Options:
    found = context.find_object(Options)
    return found if found is not None else Options()


def screen_of(context: typer.Context, *, no_color: bool = False) -> Screen:
    return Screen(no_color=no_color or options(context).no_color)


def fleet_file(context: typer.Context, *given: Path | None) -> Path:
    """The one fleet.yaml that was named, before or after the command, or the default one. Raises Fault."""
    named = {path.absolute(): path for path in (options(context).file, *given) if path is not None}
    if len(named) > 1:
        both = " and ".join(str(path) for path in named.values())
        raise Fault(f"two configuration files were given: {both}", Exit.WRONG_USE, next_step="give only one")
    from supervisor.config import find

    with _config_faults():
        return find(next(iter(named.values()), None), os.environ)


def load_config(path: Path) -> FleetConfig:
    """The valid fleet of ``path``; what is allowed but unwise goes to standard error.

    Raises Fault with every problem of the file.
    """
    from supervisor.config import check

    with _config_faults():
        config, warnings = check(path, os.environ)
    for warning in warnings:
        click.echo(f"Warning: {clean(str(warning))}", err=True)
    return config


def place_of(context: typer.Context, *given: Path | None) -> FleetLocation:
    """Where the fleet lives. A file that is missing or broken by now, or that names another state folder than the
    running fleet has, is no reason to leave that fleet alone: then a warning says what was used. Raises Fault."""
    from supervisor.config import ConfigError
    from supervisor.faces.location import elsewhere, last_good, locate

    path = fleet_file(context, *given)
    try:
        place = locate(path, os.environ)
    except ConfigError as error:
        if (known := last_good(path)) is None:
            raise _as_fault(error) from error
        _warn(f"{error.problems[0]}; using what the fleet was last started or reloaded with")
        return known
    if (other := elsewhere(place)) is None:
        return place
    _warn(f"{path} names the state folder {place.state_dir}, but its fleet runs in {other.state_dir}; using that one")
    return other


def one_datasite(place: FleetLocation, name: str | None) -> str:
    """The name, if it is one of the fleet's datasites. Raises Fault."""
    names = list(place.ports)
    if name is None:
        raise Fault(f"Name a datasite. Known: {', '.join(names)}", Exit.WRONG_USE)
    if name not in names:
        raise unknown_name(name, names)
    return name


def _warn(text: str) -> None:
    click.echo(f"Warning: {clean(text)}", err=True)


@contextmanager
def _config_faults() -> Iterator[None]:
    from supervisor.config import ConfigError

    try:
        yield
    except ConfigError as error:
        raise _as_fault(error) from error


def _as_fault(error: ConfigError) -> Fault:
    several = f"{len(error.problems)} problems:\n" if len(error.problems) > 1 else ""
    return Fault(f"{several}{error}", Exit.WRONG_USE)


@contextmanager
def talking_to(place: FleetLocation) -> Iterator[ControlClient]:
    """A client of the fleet's supervisor; what fails becomes a Fault with its exit code."""
    from supervisor.faces.client import ControlClient

    with control_faults(place), ControlClient(place.state_dir) as client:
        yield client


@contextmanager
def control_faults(place: FleetLocation, but: type[Exception] | tuple[()] = ()) -> Iterator[None]:
    """Turns a ControlError, except ``but``, into the Fault that tells the operator."""
    from supervisor.faces import client

    try:
        yield
    except but:
        raise
    except client.UnknownWorker as error:
        raise unknown_name(error.name, place.names, error.near) from error
    except client.NotRunning as error:
        raise Fault(str(error), Exit.NOT_RUNNING, next_step=f"fleet up {place.path}") from error
    except client.Broken as error:
        raise Fault(f"{error}\nnothing was changed; the fleet keeps running as before", Exit.WRONG_USE) from error
    except client.ControlError as error:
        raise Fault(str(error), next_step=f"fleet logs fleet; the supervisor's log is in {place.log_dir}") from error
