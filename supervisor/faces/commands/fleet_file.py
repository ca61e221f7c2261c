"""``fleet validate``, ``init``, ``schema`` and ``version``: nothing here needs or touches a running fleet."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, Json
from supervisor.faces.context import fleet_file, load_config, options
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.formatting import clean, plural

if TYPE_CHECKING:
    from supervisor.config import Problem


def validate(
    context: typer.Context, path: FleetFileArgument = None, file: FleetFileOption = None, as_json: Json = False
) -> None:
    """Check a fleet.yaml, and show all its errors.

    It starts nothing.

    \b
    Examples:
      fleet validate
      fleet validate fleet.yaml --json
    """
    chosen = fleet_file(context, path, file)
    if as_json:
        raise typer.Exit(_validate_json(chosen))
    config = load_config(chosen)
    click.echo(f"{chosen}: valid: fleet {clean(config.name)}, {plural(len(config.datasites), 'datasite')}")


def _validate_json(path: Path) -> Exit:
    from supervisor.config import ConfigError, check

    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    try:
        warnings = check(path, os.environ)[1]
    except ConfigError as error:
        problems = error.problems
    found = {"problems": list(map(_as_json, problems)), "warnings": list(map(_as_json, warnings))}
    click.echo(json.dumps({"file": str(path), "valid": not problems, **found}, indent=2))
    return Exit.WRONG_USE if problems else Exit.OK


def _as_json(problem: Problem) -> dict[str, Any]:
    return {**asdict(problem), "path": str(problem.path), "text": str(problem)}


Target = Annotated[
    Path | None, typer.Argument(metavar="[PATH]", help="Where to write it (./fleet.yaml).", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


def init(context: typer.Context, path: Target = None, file: FleetFileOption = None, force: Force = False) -> None:
    """Write a commented fleet.yaml to start from.

    \b
    Examples:
      fleet init
      fleet init plant/fleet.yaml
    """
    from supervisor.config import starter

    target = path or file or options(context).file or Path("fleet.yaml")
    target = target / "fleet.yaml" if target.is_dir() else target
    _write_new(target, starter(), force=force)
    click.echo(f"wrote {target}\nnext step: fleet validate {target}, then fleet up {target}")


def _write_new(target: Path, text: str, *, force: bool) -> None:
    try:
        with target.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise Fault(f"{target} already exists; it was not changed", next_step="use --force to replace it") from error
    except OSError as error:
        raise Fault(f"{target} cannot be written: {error.strerror}") from error


def schema() -> None:
    """Print the JSON schema of fleet.yaml, for editors.

    \b
    Examples:
      fleet schema > fleet.schema.json
    """
    from supervisor.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


def version() -> None:
    """Print the versions of fleet, PySyft, PyTorch and Python."""
    for title, distribution in (("fleet", "datasite-fleet"), ("PySyft", "syft"), ("PyTorch", "torch")):
        click.echo(f"{title} {installed(distribution)}")
    click.echo(f"Python {sys.version.split()[0]}")


def installed(distribution: str) -> str:
    """The installed version, by its metadata: nothing is imported."""
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"
