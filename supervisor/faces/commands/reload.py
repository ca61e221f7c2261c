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
    from supervisor.faces.follow import SentRequest

DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change; change nothing.")]


def reload(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFileOption = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    no_wait: NoWait = False,
    timeout: Timeout = 150.0,
) -> None:
    """Apply a changed fleet.yaml to the running fleet.

    It changes only what differs, and shows it: which datasites it adds, removes, restarts (and because of which key),
    and which settings change without a restart. An invalid file changes nothing. Waits up to --timeout (150 s).

    \b
    Examples:
      fleet reload --dry-run
      fleet reload
    """
    from supervisor.faces.reload import take_up

    place, screen = place_of(context, path, file), screen_of(context)
    with talking_to(place) as client:
        plan, requests = (client.reload(dry_run=True), []) if dry_run else take_up(client)
        click.echo(json.dumps(plan, indent=2) if as_json else _said(plan, dry_run=dry_run))
        if requests and not no_wait and not _is_done(client, requests, timeout, screen):
            raise typer.Exit(Exit.NOT_DONE)


def _said(plan: dict[str, Any], *, dry_run: bool) -> str:
    from supervisor.faces.reload import in_words, is_empty

    if is_empty(plan):
        return "nothing to do: the fleet matches fleet.yaml"
    return f"{'would change' if dry_run else 'changing'}:\n{in_words(plan)}"


def _is_done(client: ControlClient, requests: list[SentRequest], timeout: float, screen: Screen) -> bool:
    from supervisor.faces.follow import Telling, follow

    with screen.progress("reloading") as progress:
        telling = Telling(_say, _say, progress)
        return follow(client, requests, timeout, telling)


def _say(line: str) -> None:
    """Beside the plan, which may be JSON on standard output."""
    click.echo(line, err=True)
