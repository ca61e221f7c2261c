"""The arguments that several commands share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SUPERVISOR_LOG = "fleet"
"""The name that stands for the supervisor, beside those of the workers."""

FleetFileOption = Annotated[
    Path | None,
    typer.Option("--file", "-f", help="The fleet.yaml (./fleet.yaml, then $FLEET_FILE).", metavar="FILE"),
]
FleetFileArgument = Annotated[
    Path | None, typer.Argument(help="The fleet.yaml, as with --file.", metavar="[FILE]", show_default=False)
]
Names = Annotated[
    list[str] | None,
    typer.Argument(help="Datasites, or dashboard.", metavar="NAME...", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON with a stable shape.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Use no colours; so does the variable NO_COLOR.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return at once, without waiting for the result.")]
Timeout = Annotated[
    float,
    typer.Option("--timeout", min=0.0, metavar="SECONDS", help="The longest time to wait.", show_default=False),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Keep showing new entries, also after rotation.")]
LastLines = Annotated[
    int, typer.Option("--lines", "-n", min=0, metavar="N", help="Show the last N entries (20).", show_default=False)
]
LongFleetFile = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The fleet.yaml; here -f is --follow.")
]
DatasiteName = Annotated[str | None, typer.Argument(metavar="NAME", help="The datasite.", show_default=False)]
