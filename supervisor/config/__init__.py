"""Loads ``fleet.yaml`` into a ``FleetConfig``. Reads that file and the secret files it names, and changes nothing.

One pass finds every error, with line, column and key. The modules, in the order a file passes them: ``tree`` (text to
values with positions), ``interpolation`` (``${env:…}``, ``${file:…}``), ``schema`` (one pydantic model per mapping;
``values`` reads single keys), ``relations`` (checks across keys), ``build`` (makes ``supervisor.spec``). They are
imported on use, because some commands need only ``find``.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from supervisor.config.problems import ConfigError, Problem
from supervisor.spec import FleetConfig

__all__ = ["ConfigError", "Problem", "check", "find", "json_schema", "load", "starter"]

FILE_NAME = "fleet.yaml"
FILE_VARIABLE = "FLEET_FILE"


def find(option: Path | None, environ: Mapping[str, str]) -> Path:
    """The file to read: ``option``, else ``./fleet.yaml``, else ``$FLEET_FILE``. It may not exist: load checks that."""
    here = Path(FILE_NAME)
    if option is not None or here.exists():
        return option or here
    return Path(environ.get(FILE_VARIABLE) or here)


def load(path: Path, environ: Mapping[str, str], fqdn: Callable[[], str] = socket.getfqdn) -> FleetConfig:
    """The fleet that ``path`` describes. ``${env:…}`` reads ``environ``.

    ``fqdn`` is called at most once, and only when a datasite listens on every address and has no ``advertise``.
    Raises ConfigError with every problem in the file.
    """
    return check(path, environ, fqdn)[0]


def check(
    path: Path, environ: Mapping[str, str], fqdn: Callable[[], str] = socket.getfqdn
) -> tuple[FleetConfig, tuple[Problem, ...]]:
    """Like load, and also returns the warnings that ``fleet validate`` shows."""
    from supervisor.config.build import check as checked

    return checked(path, environ, fqdn)


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the file, for editors."""
    from supervisor.config.schema import json_schema as schema

    return schema()


def starter() -> str:
    """The commented file that ``fleet init`` writes. It is valid as it is."""
    return (Path(__file__).parent / "starter.yaml").read_text(encoding="utf-8")
