"""``fleet jobs``: collects the datasites and their logins, and becomes the program that lists and cancels jobs."""

from __future__ import annotations

import json
from typing import Annotated, NoReturn

import typer

from supervisor.faces import centre
from supervisor.faces.commands.arguments import FleetFileOption, Json
from supervisor.faces.context import fleet_file, load_config
from supervisor.faces.faults import Exit, Fault, unknown_name

_PROGRAM = centre.program("central.client.jobs")
_CANCEL = "cancel"

Words = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME... | cancel ID]", help="Only these datasites.", show_default=False)
]


def jobs(context: typer.Context, words: Words = None, file: FleetFileOption = None, as_json: Json = False) -> None:
    """Show the jobs that wait or run at the datasites, or cancel one.

    Shows id, state, since when, who asked, the function and the dataset. A cancelled job ends without a result.

    \b
    Examples:
      fleet jobs
      fleet jobs detroit_line_alpha
      fleet jobs cancel 5f0c7a3b12d94e0b8a6f1c2d3e4f5a6b
    """
    config = load_config(fleet_file(context, file))
    names, wanted = _read(list(words or ()))
    known = {spec.name: spec for spec in config.datasites}
    for name in names:
        if name not in known:
            raise unknown_name(name, known)
    chosen = [spec for spec in config.datasites if not names or spec.name in names]
    lines = [centre.address(config, spec) for spec in chosen]
    _become(json.dumps({"lines": lines, "cancel": wanted, "as_json": as_json}).encode())


def _read(words: list[str]) -> tuple[list[str], str]:
    """The datasites, and the job to cancel."""
    if words[:1] != [_CANCEL]:
        return words, ""
    if len(words) != 2:
        raise Fault("name one job: fleet jobs cancel ID", Exit.WRONG_USE, next_step="fleet jobs")
    return [], words[1]


def _become(plan: bytes) -> NoReturn:
    centre.become(_PROGRAM, plan)
