"""``fleet dashboard``: becomes the central dashboard's process. Nothing of the centre is imported here."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from supervisor.faces.faults import Exit, Fault

HostOption = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.", show_default=True)]
PortOption = Annotated[
    int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes any free one.", show_default=True)
]
Database = Annotated[
    Path, typer.Option("--db", metavar="FILE", help="SQLite file, made if it is not there.", show_default=True)
]
LateAfter = Annotated[
    float, typer.Option("--late-after", metavar="SECONDS", help="Without a beat for so long: late.", show_default=True)
]
OfflineAfter = Annotated[
    float,
    typer.Option("--offline-after", metavar="SECONDS", help="Without a beat for so long: offline.", show_default=True),
]
NewPerHour = Annotated[
    int,
    typer.Option(
        "--new-per-hour",
        min=1,
        max=1_000_000,
        metavar="N",
        help="New factories that one address may register within an hour.",
        show_default=True,
    ),
]


def dashboard(
    host: HostOption = "127.0.0.1",
    port: PortOption = 5000,
    db: Database = Path("dashboard.db"),
    late_after: LateAfter = 45.0,
    offline_after: OfflineAfter = 90.0,
    new_per_hour: NewPerHour = 1000,
) -> None:
    """Run the central dashboard here, by itself: where datasites register and beat, with a page for the wall.

    It serves until Ctrl-C or SIGTERM, and then ends with 0; with 78 where the port or the database cannot be used.
    It asks nobody who they are: listen on an address that only the plants reach. A fleet that says
    dashboard: embedded runs one of its own.

    \b
    Examples:
      fleet dashboard
      fleet dashboard --host 0.0.0.0 --port 5000 --db /var/lib/fleet/dashboard.db
      fleet dashboard --late-after 20 --offline-after 60
    """
    if not 0 < late_after <= offline_after < float("inf"):
        raise Fault("--late-after has to be above 0 and at most --offline-after", Exit.WRONG_USE)
    options = {
        "host": host,
        "port": port,
        "db": db,
        "late-after": late_after,
        "offline-after": offline_after,
        "new-per-hour": new_per_hour,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # -P: what lies in this folder is not imported instead of what is installed
    os.execv(sys.executable, [sys.executable, "-P", "-m", "central.dashboard", *words])  # noqa: S606 - no shell wanted
