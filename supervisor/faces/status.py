"""What ``fleet status`` shows: the supervisor's snapshot, or what is known without one."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from fleet_common.layout import StateFolder
from supervisor.faces.client import ControlClient, NotRunning
from supervisor.faces.context import control_faults
from supervisor.faces.faults import Exit
from supervisor.faces.formatting import clean, plural
from supervisor.faces.location import FleetLocation
from supervisor.faces.screen import Screen
from supervisor.record import Wanted
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot
from supervisor.spec import DASHBOARD_NAME

UNKNOWN = "unknown"
"""The state of a datasite when no supervisor is running; it may well be serving."""


def show(place: FleetLocation, screen: Screen, *, as_json: bool) -> Exit:
    """Show one snapshot, or what is known without a supervisor. Raises Fault when the supervisor hangs."""
    try:
        with control_faults(place, but=NotRunning), ControlClient(place.state_dir) as client:
            snapshot = client.status()
    except NotRunning:
        click.echo(json.dumps(absent(place), indent=2) if as_json else absent_text(place))
        return Exit.NOT_RUNNING
    _show_snapshot(snapshot, screen, as_json=as_json)
    return Exit.OK if all_wanted_ready(snapshot) else Exit.NOT_DONE


def _show_snapshot(snapshot: FleetSnapshot, screen: Screen, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(snapshot.to_dict(), indent=2))
        return
    from supervisor.faces import table

    if screen.live:
        screen.show(table.fleet_view(snapshot, screen.console.width))
    else:
        click.echo(table.plain(snapshot))


def all_wanted_ready(snapshot: FleetSnapshot) -> bool:
    everyone = (*snapshot.datasites, *((snapshot.dashboard,) if snapshot.dashboard else ()))
    return all(worker.ready for worker in everyone if worker.wanted == Wanted.UP)


# --- again and again ---


def show_changes(place: FleetLocation, screen: Screen, *, as_json: bool) -> None:
    """Show every change until interrupted: redrawn on a terminal, one after the other elsewhere."""
    from supervisor.faces import live

    if screen.live and not as_json:
        live.watch(place.state_dir, screen.console)
        return
    last = ""
    for snapshot in live.snapshots(place.state_dir):
        text = _as_text(place, snapshot, as_json=as_json)
        changed = str(snapshot.revision) if snapshot else UNKNOWN
        if changed != last:
            click.echo(text)
        last = changed


def _as_text(place: FleetLocation, snapshot: FleetSnapshot | None, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(snapshot.to_dict() if snapshot else absent(place))
    from supervisor.faces import table

    return (table.plain(snapshot) if snapshot else absent_text(place)) + "\n"


# --- without a supervisor ---


def absent(place: FleetLocation) -> dict[str, Any]:
    """The shape of a snapshot, with what ``fleet.yaml`` alone says; everything else is null."""
    return {
        "fleet": place.fleet,
        "config": str(place.path),
        "version": None,
        "supervisor": {"pid": None, "uptime_s": None, "stopping": False},
        "taken_at": None,
        "revision": None,
        "host": None,
        "dashboard": _unknown(DASHBOARD_NAME, None) if place.dashboard else None,
        "datasites": [_unknown(name, port) for name, port in place.ports.items()],
    }


def _unknown(name: str, port: int | None) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(field.name for field in fields(WorkerSnapshot))
    reason = "no supervisor is running"
    return {**empty, "name": name, "port": port, "state": UNKNOWN, "ready": False, "reason": reason}


def absent_text(place: FleetLocation) -> str:
    lines = [f"fleet {clean(place.fleet)}: not running (no supervisor for state folder {clean(str(place.state_dir))})"]
    known = [clean(name) + (f" :{port}" if port else "") for name, port in place.ports.items()]
    lines.append(f"datasites: {', '.join(known) or 'none'}")
    if left := survivors(place.state_dir):
        lines.append(
            f"{plural(len(left), 'process')} of an earlier supervisor may still be running: {', '.join(left)};"
            " fleet up adopts them, fleet down stops them"
        )
    return "\n".join([*lines, f"next step: fleet up {clean(str(place.path))}"])


def survivors(state_dir: Path) -> list[str]:
    """Names of the processes that an earlier supervisor recorded and that may still run. Reads only."""
    folder = StateFolder(state_dir).run
    if not folder.is_dir() or not any(folder.glob("*.json")):
        return []
    from supervisor.effects.run_files import running

    return sorted(map(clean, running(folder)))
