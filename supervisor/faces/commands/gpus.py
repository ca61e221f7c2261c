"""``fleet gpus``."""

from __future__ import annotations

import json

import click
import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, Json
from supervisor.faces.context import place_of
from supervisor.faces.faults import Exit


def gpus(
    context: typer.Context, path: FleetFileArgument = None, file: FleetFileOption = None, as_json: Json = False
) -> None:
    """Show the GPUs of this host, and who uses them.

    Shows memory and health, which datasite has which GPU, and why. Works with and without a supervisor; without one it
    shows the last assignment. Exits with 1 if the driver does not answer.

    \b
    Examples:
      fleet gpus
      fleet gpus --json | jq '.cards[] | select(.usable | not) | .trouble'
    """
    from supervisor.faces.gpus import take

    picture = take(place_of(context, path, file))
    click.echo(json.dumps(picture.to_dict(), indent=2) if as_json else picture.to_text())
    if picture.seen.trouble:
        raise typer.Exit(Exit.NOT_DONE)
