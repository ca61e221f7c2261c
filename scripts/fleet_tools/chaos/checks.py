"""The checks after the last strike: with the fleet still up, and after ``fleet down``.

It reads, waits a little where needed, and reports; it repairs nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

from fleet_tools.chaos import verdict, world
from fleet_tools.chaos.field import Field
from fleet_tools.chaos.siege import Siege
from fleet_tools.chaos.verdict import Check
from fleet_tools.ports import listens
from fleet_tools.processes import alive, describe
from fleet_tools.waiting import Trouble, until

_ZOMBIE_PATIENCE = 90.0
"""A worker leaves a dead child of user code to that code for up to a minute."""
_ENDING = 15.0


def while_up(field: Field, siege: Siege) -> list[Check]:
    """With every client ended."""
    return [
        *of_promises(siege),
        _writes(field),
        _ready(field),
        *_events(field),
        _orphans(field),
        _zombies(field),
        Check("no file descriptor leaked", tuple(verdict.leaks(siege.files)), _files(siege)),
    ]


def after_down(field: Field) -> list[Check]:
    """Takes the fleet down first."""
    try:
        field.plant.must("down")
    except Trouble as broken:
        return [Check("fleet down", (str(broken),))]
    with contextlib.suppress(Trouble):
        until(lambda: not field.plant.left(), _ENDING, "the end of every process")
    ports = [str(port) for port in sorted(field.plant.used) if listens(port)]
    return [
        Check("after fleet down: no process", tuple(map(describe, field.plant.left()))),
        Check("after fleet down: no port in use", tuple(ports)),
        Check("after fleet down: no socket", tuple(world.sockets(field.plant.state_folder.root))),
    ]


def of_promises(siege: Siege) -> list[Check]:
    broken = [f"{one.strike.number} {one.strike.kind}: {one.broken}" for one in siege.outcomes if one.broken]
    done = sum(not one.skipped for one in siege.outcomes)
    return [Check("every fault kept its promises", tuple(broken), f"{done} faults")]


def _writes(field: Field) -> Check:
    try:
        found = field.clients.verify()
    except Trouble as broken:
        return Check("every acknowledged write is kept", (str(broken),))
    missing = [f"{name}: {what}" for name, line in found.items() for what in line["missing"]]
    return Check("every acknowledged write is kept", tuple(missing), _counted(found))


def _counted(found: dict[str, Any]) -> str:
    total: dict[str, int] = {}
    for line in found.values():
        for what, count in line["counts"].items():
            total[what] = total.get(what, 0) + count
    writes = total.get("dataset", 0) + total.get("object", 0)
    others = ", ".join(f"{total.get(what, 0)} {what}s" for what in ("call", "job", "login"))
    return f"{writes} writes read back; {others}; {total.get('errors', 0)} errors during outages"


def _ready(field: Field) -> Check:
    try:
        picture = field.plant.wait_whole()
    except Trouble as broken:
        return Check("every datasite ready", (str(broken),))
    return Check("every datasite ready", (), f"{len(picture.datasites)} datasites")


def _events(field: Field) -> list[Check]:
    events, hits, excuses = field.plant.events(), field.injections, field.excuses
    counts = {one.name: one.restarts for one in field.plant.look().datasites}
    reported = sum(one.supervised and one.signal == "SIGKILL" for one in hits)
    ends = sum(event["event"] == "exited" for event in events)
    return [
        Check(
            "every restart is reported with its cause",
            tuple(verdict.unexplained_restarts(events, counts, excuses)),
            f"{verdict.reported_restarts(events)} restarts",
        ),
        Check(
            "every injected SIGKILL is reported",
            tuple(verdict.unreported_ends(events, hits, excuses)),
            f"{reported} reported",
        ),
        Check(
            "no process ended without a known cause",
            tuple(verdict.uncaused_ends(events, hits, excuses)),
            f"{ends} ends",
        ),
    ]


def _tree(field: Field) -> set[int]:
    """The supervisor, the workers, all that is below them, and the helpers that multiprocessing keeps for them: the
    forkserver of a supervisor that was killed lives until the last worker that it forked has ended."""
    picture = field.plant.look()
    workers = [one.pid for one in picture.datasites if one.pid]
    below = {pid for root in (picture.supervisor_pid, *workers) for pid in (root, *world.descendants(root))}
    return below | set(world.helpers(workers))


def _orphans(field: Field) -> Check:
    """Whatever lives in the fleet's folders or has a datasite's leash open belongs to a process that fleet knows."""

    def strangers() -> list[int]:
        return sorted({pid for pid in field.plant.left() if alive(pid)} - _tree(field))

    with contextlib.suppress(Trouble):
        until(lambda: not strangers(), _ENDING, "no orphan")
    return Check("no orphan", tuple(map(describe, strangers())), f"{len(_tree(field))} processes")


def _zombies(field: Field) -> Check:
    with contextlib.suppress(Trouble):
        until(lambda: not world.zombies(_tree(field)), _ZOMBIE_PATIENCE, "no zombie")
    return Check("no zombie", tuple(world.zombies(_tree(field))))


def _files(siege: Siege) -> str:
    lives = [counts for counts in siege.files.values() if counts]
    most = max((max(counts) for counts in lives), default=0)
    return f"{len(lives)} supervisors, at most {most} open files, not counting the pipes of their workers"
