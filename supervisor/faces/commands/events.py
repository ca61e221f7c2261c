"""``fleet events``."""

from __future__ import annotations

import json
from typing import Annotated

import click
import typer

from supervisor.faces.commands.arguments import SUPERVISOR_LOG, Follow, Json, LastLines, LongFleetFile
from supervisor.faces.context import place_of
from supervisor.faces.faults import unknown_name

EventsName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A datasite, dashboard, or fleet (the whole fleet).", show_default=False),
]


def events(
    context: typer.Context,
    name: EventsName = None,
    follow: Follow = False,
    lines: LastLines = 20,
    as_json: Json = False,
    file: LongFleetFile = None,
) -> None:
    """Show what happened, and why.

    Events are starts, exits, failed probes, reloads, quarantines and more. Works with and without a supervisor. With
    --json, each event is one line of JSON. Here -f means --follow: name the fleet.yaml with --file, or with -f before
    the command.

    \b
    Examples:
      fleet events
      fleet events detroit_line_beta -n 100
      fleet events -f --json
    """
    from supervisor.faces import events as history

    place = place_of(context, file)
    known = [*place.names, SUPERVISOR_LOG]
    # A datasite that is no longer in fleet.yaml has a history too.
    if name is not None and name not in known and not history.last(place.state_dir, name, 1):
        raise unknown_name(name, known)
    show = json.dumps if as_json else history.in_words
    shown, end = history.last_and_end(place.state_dir, name, lines)
    for event in shown:
        click.echo(show(event))
    if follow:
        for event in history.follow(place.state_dir, name, begin=end):
            click.echo(show(event))
