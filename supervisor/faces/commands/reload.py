"""``fleet reload``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from supervisor.faces.commands.arguments import FleetFileArgument, FleetFileOption, Json, NoWait, Timeout
from supervisor.faces.context import place_of, screen_of, talking_to
from supervisor.faces.faults import Exit
from supervisor.faces.screen import Screen

if TYPE_CHECKING:
    from supervisor.faces.client import ControlClient
    from supervisor.faces.follow import Asked

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")]


def reload(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 150.0,
) -> None:
    """Take up a changed fleet.yaml: only what differs is touched.

    Shows who is added, removed, restarted because of which key, and who takes a new setting up without a restart.
    A broken file changes nothing. Returns when all of it came about; waits up to --timeout (150 s).

    \b
    Examples:
      fleet reload --dry-run
      fleet reload
    """
    from supervisor.faces.reload import take_up

    place, screen = place_of(context, path, file), screen_of(context)
    with talking_to(place) as client:
        plan, asked = (client.reload(dry_run=True), []) if dry_run else take_up(client)
        click.echo(json.dumps(plan, indent=2) if as_json else _said(plan, dry_run=dry_run))
        if asked and not no_wait and not _came_about(client, asked, timeout, screen):
            raise typer.Exit(Exit.NOT_DONE)


def _said(plan: dict[str, Any], *, dry_run: bool) -> str:
    from supervisor.faces.reload import in_words, is_empty

    if is_empty(plan):
        return "nothing to do: the fleet is what fleet.yaml asks for"
    return f"{'would do' if dry_run else 'taking up'}:\n{in_words(plan)}"


def _came_about(client: ControlClient, asked: list[Asked], timeout: float, screen: Screen) -> bool:
    from supervisor.faces.follow import Telling, follow

    with screen.progress("reloading") as progress:
        telling = Telling(_say, _say, progress)
        return follow(client, asked, timeout, telling)


def _say(line: str) -> None:
    """Beside the plan, which may be JSON on standard output."""
    click.echo(line, err=True)
