"""``fleet.yaml`` text to a ``FleetConfig``: the door. Reads that file and the secret files it names, changes nothing.

Every error is found in one pass and carries line, column and key. The rooms behind, in the order a file passes them:
``tree`` (text to positioned values), ``interpolation`` (``${env:…}``, ``${file:…}``), ``schema`` (pydantic models of
one mapping each, over the ``values`` of single keys), ``relations`` (what only two keys together can show), ``build``
(to ``supervisor.spec``). They are imported on use: ``find`` serves commands that read no configuration.
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
    """The file to read: ``option``, else ``./fleet.yaml``, else ``$FLEET_FILE``. Whether it can be read, load says."""
    here = Path(FILE_NAME)
    if option is not None or here.exists():
        return option or here
    return Path(environ.get(FILE_VARIABLE) or here)


def load(path: Path, environ: Mapping[str, str], fqdn: Callable[[], str] = socket.getfqdn) -> FleetConfig:
    """The fleet that ``path`` describes. ``environ`` is what ``${env:…}`` reads.

    ``fqdn`` is asked once, and only when a datasite listens on every address and names no ``advertise``.
    Raises ConfigError with every problem of the file.
    """
    return check(path, environ, fqdn)[0]


def check(
    path: Path, environ: Mapping[str, str], fqdn: Callable[[], str] = socket.getfqdn
) -> tuple[FleetConfig, tuple[Problem, ...]]:
    """As load, with what is allowed but unwise: the warnings that ``fleet validate`` shows."""
    from supervisor.config.build import check as checked

    return checked(path, environ, fqdn)


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of the file, for editors."""
    from supervisor.config.schema import json_schema as schema

    return schema()


def starter() -> str:
    """The commented file that ``fleet init`` writes; valid as it is."""
    return (Path(__file__).parent / "starter.yaml").read_text(encoding="utf-8")
