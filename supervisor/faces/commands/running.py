"""``fleet up`` and ``fleet down``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from supervisor.faces.commands.arguments import FleetFile, FleetFileArgument, Json, NoColor, NoWait, Timeout
from supervisor.faces.context import fleet_file, load_config, place_of, screen_of, talking_to
from supervisor.faces.faults import Exit, Fault
from supervisor.faces.screen import Screen

if TYPE_CHECKING:
    from supervisor.faces.asking import Asked
    from supervisor.faces.client import ControlClient
    from supervisor.faces.place import Place
    from supervisor.spec import FleetConfig

Detach = Annotated[bool, typer.Option("--detach", "-d", help="Run in the background; return when all is ready.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to what reset: true removes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No table and no log lines; fleet.log has them.")]


def up(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFile = None,
    detach: Detach = False,
    yes: Yes = False,
    quiet: Quiet = False,
    timeout: Timeout = 300.0,
    no_color: NoColor = False,
) -> None:
    """Start the fleet and keep it running.

    On a terminal a live table is shown; otherwise log lines. Ctrl-C stops all datasites in order, a second one
    kills what is left. --timeout (300 s) is for --detach.

    \b
    Examples:
      fleet up
      fleet up fleet.yaml --detach
      fleet up --yes            agree to what reset: true removes
    """
    from supervisor.faces import bringing

    config = load_config(fleet_file(context, path, file))
    bringing.refuse_second(config)
    reset = bringing.confirm_reset(config, yes=yes)
    screen = screen_of(context, no_color=no_color)
    if detach:
        bringing.serve_detached(config, timeout, screen)
    else:
        bringing.serve_here(config, reset, screen, quiet=quiet)


DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")]


def reload(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFile = None,
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
    from supervisor.faces import reloading

    place, screen = place_of(context, path, file), screen_of(context)
    with talking_to(place) as client:
        plan, asked = (client.reload(dry_run=True), []) if dry_run else reloading.reload(client)
        click.echo(json.dumps(plan, indent=2) if as_json else _said(plan, dry_run=dry_run))
        if asked and not no_wait and not _came_about(client, asked, timeout, screen):
            raise typer.Exit(Exit.NOT_DONE)


def _said(plan: dict[str, Any], *, dry_run: bool) -> str:
    from supervisor.faces import reloading

    if reloading.is_empty(plan):
        return "nothing to do: the fleet is what fleet.yaml asks for"
    return f"{'would do' if dry_run else 'taking up'}:\n{reloading.in_words(plan)}"


def _came_about(client: ControlClient, asked: list[Asked], timeout: float, screen: Screen) -> bool:
    from supervisor.faces import asking

    with screen.progress("reloading") as progress:
        telling = asking.Telling(_say, _say, progress)
        return asking.follow(client, asked, timeout, telling)


def _say(line: str) -> None:
    """Beside the plan, which may be JSON on standard output."""
    click.echo(line, err=True)


def _as_known(place: Place) -> FleetConfig:
    """The fleet as far as it can be known: an error in the file, or a secret that is not there now, ends no `down`."""
    try:
        return load_config(place.path)
    except Fault:
        return place.unjudged()


def down(
    context: typer.Context,
    path: FleetFileArgument = None,
    file: FleetFile = None,
    no_wait: NoWait = False,
    timeout: Timeout = 60.0,
) -> None:
    """Stop all datasites, then the supervisor.

    Datasites that a killed supervisor left behind are stopped too. Waits up to --timeout (60 s).

    \b
    Examples:
      fleet down
      fleet down fleet.yaml --no-wait
    """
    from supervisor.faces import bringing

    place, screen = place_of(context, path, file), screen_of(context)
    try:
        with talking_to(place) as client:
            bringing.bring_down(client, None if no_wait else timeout, screen)
    except Fault as fault:
        if fault.exit_code != Exit.NOT_RUNNING or not bringing.stop_leftovers(_as_known(place), screen):
            raise
