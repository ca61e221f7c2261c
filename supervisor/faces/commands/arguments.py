"""The arguments that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SUPERVISOR_LOG = "fleet"
"""The name that stands for the supervisor, beside those of the workers."""

FleetFileOption = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The fleet.yaml (default: ./fleet.yaml, then $FLEET_FILE).", metavar="FILE"),
]
FleetFileArgument = Annotated[
    Path | None, typer.Argument(help="The fleet.yaml, as with --file.", metavar="[FILE]", show_default=False)
]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Names, as in fleet status.", metavar="NAME...", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="JSON with a stable shape, for programs.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="No colours; the variable NO_COLOR does the same.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Ask, and return without waiting for what comes of it.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.0, metavar="SECONDS", help="Longest time to wait.", show_default=False),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is appended, also after rotation.")]
LastLines = Annotated[
    int, typer.Option("--lines", "-n", min=0, metavar="N", help="How many last lines (20).", show_default=False)
]
LongFleetFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The fleet.yaml; here -f is --follow.")
]
