"""``fleet dashboard``: replaces this process by the central dashboard. It imports nothing of the centre."""

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
    Path, typer.Option("--db", metavar="FILE", help="SQLite file; created if absent.", show_default=True)
]
LateAfter = Annotated[
    float,
    typer.Option(
        "--late-after",
        metavar="SECONDS",
        help="Show a factory as late after so long without a heartbeat.",
        show_default=True,
    ),
]
OfflineAfter = Annotated[
    float,
    typer.Option(
        "--offline-after",
        metavar="SECONDS",
        help="Show it as offline after so long without a heartbeat.",
        show_default=True,
    ),
]
NewPerHour = Annotated[
    int,
    typer.Option(
        "--new-per-hour",
        min=1,
        max=1_000_000,
        metavar="N",
        help="New factories that one address may register per hour.",
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
    """Run a central dashboard.

    Datasites register and send heartbeats; the page shows them. It runs until Ctrl-C or SIGTERM and then exits with 0.
    It exits with 78 if it cannot use the port or the database. It has no authentication: listen on an address that
    only the plants can reach. A fleet with dashboard: embedded runs its own.

    \b
    Examples:
      fleet dashboard
      fleet dashboard --host 0.0.0.0 --port 5000 --db /var/lib/fleet/dashboard.db
      fleet dashboard --late-after 20 --offline-after 60
    """
    if not 0 < late_after <= offline_after < float("inf"):
        raise Fault("--late-after must be above 0 and at most --offline-after", Exit.WRONG_USE)
    options = {
        "host": host,
        "port": port,
        "db": db,
        "late-after": late_after,
        "offline-after": offline_after,
        "new-per-hour": new_per_hour,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # -P: no module in the working directory replaces an installed one
    os.execv(sys.executable, [sys.executable, "-P", "-m", "central.dashboard", *words])  # noqa: S606 - no shell wanted
