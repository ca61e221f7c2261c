"""The faults: each breaks something, repairs it, and says what must hold meanwhile and afterwards.

A fault is a generator with one ``yield``: the damage happens before it, repair and checks after it. It may raise
Nothing when there is nothing to break. ``siege`` checks that the fleet recovers.
"""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fleet_common import databases
from fleet_common.unix_path import short_path
from fleet_tools.chaos.board import Mood
from fleet_tools.chaos.field import Field
from fleet_tools.chaos.plan import Strike
from fleet_tools.chaos.plant import Line
from fleet_tools.chaos.world import Nothing
from fleet_tools.ports import free_ports
from fleet_tools.processes import alive, describe
from fleet_tools.waiting import Trouble, until
from supervisor.snapshot import WorkerSnapshot

Body = Callable[[Field, Strike], Iterator[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """``weight``: how often it is drawn; ``alone``: never while another fault is under way."""

    about: str
    body: Body
    weight: int = 2
    alone: bool = False


FAULTS: dict[str, Fault] = {}


def fault(weight: int = 2, *, alone: bool = False) -> Callable[[Body], Body]:
    """Register the function under its name; the first line of its docstring describes it."""

    def enter(body: Body) -> Body:
        about = (body.__doc__ or "").strip().splitlines()[0]
        FAULTS[body.__name__.replace("_", "-")] = Fault(about, body, weight, alone)
        return body

    return enter


# --- workers ------------------------------------------------------------------------------------------------------


@fault(weight=6)
def worker_kill(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to a worker: it comes back, and the processes that user code forked are gone"""
    before = field.victim(strike)
    family = field.plant.family(before.name)
    field.touch(before.name, restarts=1)
    field.hit(before, signal.SIGKILL)
    yield
    field.back(before)
    field.gone(family, f"a process forked by {before.name}")


@fault(weight=3)
def worker_stop(field: Field, strike: Strike) -> Iterator[None]:
    """SIGSTOP to a worker: the liveness probe detects it, and it is replaced"""
    before = field.victim(strike)
    field.touch(before.name, restarts=1)
    field.hit(before, signal.SIGSTOP)
    yield
    after = field.back(before)
    counted = after.restarts_by_cause.get("hung", 0) - before.restarts_by_cause.get("hung", 0)
    field.promise(counted == 1, f"{before.name} was restarted, but not counted as hung: {after.restarts_by_cause}")


@fault(weight=2)
def worker_term(field: Field, strike: Strike) -> Iterator[None]:
    """SIGTERM to a worker from outside: it stops in order, and is started again"""
    before = field.victim(strike)
    field.touch(before.name, restarts=1)
    field.hit(before, signal.SIGTERM)
    yield
    field.back(before)


@fault(weight=2)
def worker_kill_twice(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to a worker, and to its successor while it starts"""
    before = field.victim(strike)
    field.touch(before.name, restarts=2)
    field.hit(before, signal.SIGKILL)
    reborn = field.back(before, ready=False)
    time.sleep(strike.draw * 0.5)
    field.hit(reborn, signal.SIGKILL)
    yield
    field.back(reborn)


@fault(weight=1, alone=True)
def all_workers_kill(field: Field, strike: Strike) -> Iterator[None]:  # noqa: ARG001 - the one signature of all
    """SIGKILL to every worker at once"""
    everyone = field.plant.look().datasites
    for before in everyone:
        field.touch(before.name, restarts=1)
        field.hit(before, signal.SIGKILL)
    yield
    for before in everyone:
        field.back(before)


@fault(weight=2)
def job_kill(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to a queued job, or to a process that user code forked: the datasite keeps serving"""
    before = field.victim(strike)

    def running() -> list[int]:
        forked = set(field.clients.job(before.name)) & set(field.plant.family(before.name))
        return [*field.plant.jobs(before.name), *forked]

    with contextlib.suppress(Trouble):
        until(running, min(60.0, field.patience), "a job")
    pids = running()
    if not pids:
        raise Nothing(f"no process of user code runs on {before.name}")
    field.signal(pids[int(strike.draw * len(pids))], signal.SIGKILL)
    yield


@fault(weight=1)
def zygote_kill(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to a zygote, the process that forks jobs: the datasite keeps serving, and its next job runs"""
    before = field.victim(strike)
    pids = field.plant.zygotes(before.name)
    if not pids:
        raise Nothing(f"{before.name} has no zygote at the moment")
    field.signal(pids[0], signal.SIGKILL)
    yield


# --- forkserver and supervisor ------------------------------------------------------------------------------------


@fault(weight=2)
def forkserver_kill(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to the forkserver: datasites stay up, and the next start uses a new forkserver"""
    supervisor = field.supervisor()
    old = field.plant.forkserver(supervisor)
    if old is None:
        raise Nothing("there is no forkserver at the moment")
    before = field.victim(strike)
    field.signal(old, signal.SIGKILL)
    time.sleep(strike.draw)
    if killed := strike.fraction(2) < 0.5:
        field.touch(before.name, restarts=1)
        field.hit(before, signal.SIGKILL)
    yield
    if killed:
        field.back(before)
    until(lambda: field.plant.forkserver(supervisor) not in (None, old), field.patience, "a new forkserver")


@fault(weight=4)
def supervisor_kill(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to the supervisor, then `fleet up`: every datasite is adopted, none restarted"""
    _kill_supervisor(field)
    time.sleep(strike.draw * 3)
    yield
    _up(field)


@fault(weight=2, alone=True)
def supervisor_and_worker_kill(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to the supervisor, and then to a worker while no supervisor runs"""
    before = field.victim(strike)
    field.touch(before.name)
    _kill_supervisor(field)
    field.hit(before, signal.SIGKILL, supervised=False)
    time.sleep(strike.draw)
    yield
    _up(field)
    field.back(before)


@fault(weight=2, alone=True)
def supervisor_kill_midway(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to a worker, then to the supervisor while it starts the worker's successor"""
    before = field.victim(strike)
    supervised = (delay := strike.draw * 0.8) > 0.3
    with field.excused(before.name):
        field.renewed.add(before.name)
        field.hit(before, signal.SIGKILL, supervised=supervised)
        time.sleep(delay)
        _kill_supervisor(field)
        yield
        _up(field)
        after = field.back(before)
        field.promise(
            after.restarts - before.restarts in (0, 1), f"{before.name}: one end was counted as several restarts"
        )
        field.restarts[before.name] = after.restarts - before.restarts


@fault(weight=1, alone=True)
def supervisor_suspended(field: Field, strike: Strike) -> Iterator[None]:
    """SIGSTOP to the supervisor for some seconds: it kills no worker for the time it missed"""
    supervisor = field.supervisor()
    field.signal(supervisor, signal.SIGSTOP)
    try:
        time.sleep(3 + strike.draw * 12)
    finally:
        field.signal(supervisor, signal.SIGCONT)
    yield
    time.sleep(3)


@fault(weight=1, alone=True)
def fleet_down_up(field: Field, strike: Strike) -> Iterator[None]:  # noqa: ARG001 - the one signature of all
    """`fleet down` and `fleet up` under load: nothing is left in between, and nothing is lost"""
    before = field.plant.look()
    field.plant.must("down")
    left = field.plant.inhabitants()
    field.promise(not left, f"still running after fleet down: {', '.join(map(describe, left))}")
    for line in before.datasites:
        field.touch(line.name, restarts=-line.restarts)  # counts begin anew
    yield
    _up(field)


@fault(weight=2)
def pulse_garbage(field: Field, strike: Strike) -> Iterator[None]:  # noqa: ARG001 - the one signature of all
    """Hostile datagrams to the pulse socket: the supervisor goes on"""
    before = field.supervisor()
    stranger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with stranger, short_path(field.plant.state_folder.pulse_socket) as address, contextlib.suppress(OSError):
        for raw in (b"[" * 30_000, b"\xff" * 1000, b"", b'{"pid": true}', b"{" * 60_000):
            stranger.sendto(raw, address)
    yield
    field.promise(field.overlap or field.supervisor() == before, "a datagram ended the supervisor")


@fault(weight=1, alone=True)
def doors_lost(field: Field, strike: Strike) -> Iterator[None]:  # noqa: ARG001 - the one signature of all
    """Sockets and lock are removed: the supervisor makes them again"""
    before, state = field.supervisor(), field.plant.state_folder
    for path in (state.control_socket, state.pulse_socket, state.lock):
        path.unlink()
    yield
    until(lambda: all(path.exists() for path in (state.control_socket, state.lock)), field.patience, "new doors")
    field.promise(field.supervisor() == before, "another supervisor has made the doors")


@fault(weight=1, alone=True)
def run_file_damaged(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to the supervisor, and a run file that names process 1: that datasite is replaced, the others adopted"""
    before = field.victim(strike)
    field.touch(before.name)
    _kill_supervisor(field)
    run = field.plant.state_folder.run / f"{before.name}.json"
    run.write_text(json.dumps({**json.loads(run.read_text()), "pid": True}))
    yield
    _up(field)
    field.back(before)
    field.promise(run.with_name(f"{run.name}.damaged").exists(), "the damaged run file was not kept")


@fault(weight=1, alone=True)
def ledger_damaged(field: Field, strike: Strike) -> Iterator[None]:
    """SIGKILL to the supervisor and to a worker, and a torn ledger: that datasite waits for `fleet start`"""
    before = field.victim(strike)
    with field.excused(*(line.name for line in field.plant.lines)):  # counts are those of the ledger before it
        field.touch(before.name)
        _kill_supervisor(field)
        field.hit(before, signal.SIGKILL, supervised=False)
        ledger = field.plant.state_folder.history.ledger
        ledger.write_bytes(ledger.read_bytes()[: ledger.stat().st_size // 2])
        yield
        _up(field)
        down = next(one for one in field.plant.look().datasites if one.name == before.name)
        field.promise(down.wanted == "down", f"{before.name} was started although nobody knows whether it is wanted")
        field.plant.must("start", before.name)
        field.back(before)


def _kill_supervisor(field: Field) -> None:
    supervisor = field.supervisor()
    field.new_supervisor = True
    field.signal(supervisor, signal.SIGKILL)
    until(lambda: not alive(supervisor), 10.0, "the end of the supervisor")


def _up(field: Field) -> None:
    field.new_supervisor = True
    if field.overlap and field.plant.picture() is not None:
        return
    field.plant.up()


# --- what is around it --------------------------------------------------------------------------------------------


@fault(weight=2)
def port_theft(field: Field, strike: Strike) -> Iterator[None]:
    """Another process takes a stopped datasite's port: quarantined with the reason, and back once it is free"""
    before = field.victim(strike)
    field.touch(before.name)
    with field.excused(before.name):
        _command(field, "stop", before.name)
        with _thief(before.port):
            _is_refused(field, before.name, f"port {before.port} is taken")
            yield
        _command(field, "start", before.name)
        field.restarts[before.name] = field.plant.worker(before.name).restarts - before.restarts


def _is_refused(field: Field, name: str, why: str) -> None:
    """A start ends in quarantine, for that reason."""
    _command(field, "start", name, "--no-wait")
    with contextlib.suppress(Trouble):
        until(lambda: field.plant.worker(name).state == "quarantined", field.patience, "quarantine")
    found = field.plant.worker(name)
    field.promise(
        found.state == "quarantined" and why in found.reason,
        f"{name} is {found.state}, not quarantined because it {why}: {found.reason}",
    )


@fault(weight=2, alone=True)
def state_lost(field: Field, strike: Strike) -> Iterator[None]:
    """A datasite's identity, database or folder goes: not started without it, and all is back once it is restored"""
    before = field.victim(strike)
    folder = field.plant.state_folder.worker(before.name)
    lost = (folder.identity, folder.pysyft, folder.root)[int(strike.fraction(2) * 3)]
    yield from _without(field, before, lost, lambda: None, "existed before")


@fault(weight=2, alone=True)
def database_damaged(field: Field, strike: Strike) -> Iterator[None]:
    """A datasite's database is overwritten: named at the first try, and all is back once it is restored"""
    before = field.victim(strike)
    folder = field.plant.state_folder.worker(before.name)

    def damage() -> None:
        shutil.copytree(field.plant.folder / _ASIDE, folder.pysyft)
        (database,) = folder.pysyft_databases()
        databases.log_of(database).unlink(missing_ok=True)
        begin = int(strike.fraction(3) * database.stat().st_size / 2)
        with database.open("r+b") as file:
            file.seek(begin)
            file.write(b"\xa5" * (database.stat().st_size // 2))

    yield from _without(field, before, folder.pysyft, damage, "is damaged (")


_ASIDE = "aside"


def _without(field: Field, before: WorkerSnapshot, lost: Path, instead: Callable[[], None], why: str) -> Iterator[None]:
    """What is at ``lost`` is taken away, ``instead`` of which something else may be there, and is restored."""
    field.touch(before.name)
    aside = field.plant.folder / _ASIDE
    with field.excused(before.name):
        _command(field, "stop", before.name)
        shutil.move(lost, aside)
        try:
            instead()
            _is_refused(field, before.name, why)
            yield
        finally:
            if lost.is_dir():
                shutil.rmtree(lost)
            shutil.move(aside, lost)
        _command(field, "start", before.name)
        field.restarts[before.name] = field.plant.worker(before.name).restarts - before.restarts


@contextlib.contextmanager
def _thief(port: int) -> Iterator[None]:
    """Listen on the port. A connection of the datasite's last process may still hold it for a moment."""

    def listen() -> socket.socket | None:
        with contextlib.suppress(OSError):
            return socket.create_server(("127.0.0.1", port), backlog=16)
        return None

    with until(listen, 30.0, f"port {port} free to take"):
        yield


def _moody(mood: Mood) -> Body:
    def body(field: Field, strike: Strike) -> Iterator[None]:
        field.board.become(mood)
        try:
            time.sleep(2 + strike.draw * 5)
            picture = field.plant.picture()
            lines = picture.datasites if picture else ()
            field.promise(
                lines and all(one.ready for one in lines), f"a dashboard that is {mood} makes a datasite unready"
            )
            yield
        finally:
            field.board.become(Mood.WELL)
        until(lambda: _registered(field), field.patience, "every datasite registered again")

    body.__name__ = f"dashboard_{mood.value}"
    return body


def _registered(field: Field) -> bool:
    picture = field.plant.picture()
    return picture is not None and all(one.registered and not one.heartbeat_error for one in picture.datasites)


for _mood, _about in (
    (Mood.DOWN, "The dashboard refuses connections: datasites stay ready, and register when it is back"),
    (Mood.SLOW, "The dashboard takes half a minute to answer: datasites stay ready"),
    (Mood.GARBAGE, "The dashboard answers nonsense: datasites stay ready"),
):
    _body = _moody(_mood)
    FAULTS[f"dashboard-{_mood.value}"] = Fault(_about, _body)


@fault(weight=2, alone=True)
def logs_full(field: Field, strike: Strike) -> Iterator[None]:
    """The log disk is full: datasites keep serving, and a killed one still comes back"""
    before = field.victim(strike)
    field.log_disk.fill()
    try:
        time.sleep(strike.draw * 3)
        if strike.fraction(2) < 0.7:
            field.touch(before.name, restarts=1)
            field.hit(before, signal.SIGKILL)
            field.back(before)
        yield
    finally:
        field.log_disk.free()


@fault(weight=2, alone=True)
def state_full(field: Field, strike: Strike) -> Iterator[None]:
    """The state disk is full: the fleet stays up, and every datasite is ready once there is space again"""
    before = field.victim(strike)
    with field.excused(before.name):
        field.state_disk.fill()
        try:
            time.sleep(1 + strike.draw * 3)
            if killed := strike.fraction(2) < 0.6:
                field.touch(before.name)
                field.hit(before, signal.SIGKILL)
                time.sleep(1 + strike.fraction(3) * 6)
            field.promise(field.plant.picture(), "a full state disk ends the supervisor")
            yield
        finally:
            field.state_disk.free()
        if killed:
            field.restarts[before.name] = field.back(before).restarts - before.restarts


# --- the operator -------------------------------------------------------------------------------------------------


@fault(weight=2)
def operator_restart(field: Field, strike: Strike) -> Iterator[None]:
    """`fleet restart` of a datasite: a new process, and no restart counted"""
    before = field.victim(strike)
    field.touch(before.name)
    _command(field, "restart", before.name)
    yield
    field.promise(field.plant.worker(before.name).pid != before.pid, "fleet restart did not replace the process")


@fault(weight=2)
def operator_stop_start(field: Field, strike: Strike) -> Iterator[None]:
    """`fleet stop` and `fleet start` of a datasite: it stays down, and none of its processes is left meanwhile"""
    before = field.victim(strike)
    field.touch(before.name)
    family = field.plant.family(before.name)
    _command(field, "stop", before.name)
    field.gone(family, f"a process of {before.name} after fleet stop")
    time.sleep(strike.draw * 2)
    field.promise(field.plant.worker(before.name).state == "down", f"{before.name} was stopped, but is not down")
    yield
    _command(field, "start", before.name)


def _command(field: Field, *words: str) -> None:
    """During other faults a command may be refused; the operator repeats it."""
    if not field.overlap:
        field.plant.must(*words)
        return
    with contextlib.suppress(Trouble):
        until(lambda: field.plant.run(*words).returncode == 0, 60.0, "a command that the supervisor accepts")


@fault(weight=3, alone=True)
def reload_change(field: Field, strike: Strike) -> Iterator[None]:
    """A changed fleet.yaml, `fleet reload`: only what differs is touched"""
    line = field.plant.lines[strike.line % len(field.plant.lines)]
    kind = int(strike.draw * 3)
    if kind == 0:  # a live key
        line.heartbeat = "1500ms" if line.heartbeat == "1s" else "1s"
    elif kind == 1:
        line.environment = {"CHAOS": str(strike.number)}
        field.touch(line.name)
    else:
        yield from _added_and_removed(field, strike)
        return
    field.plant.write()
    output = field.plant.must("reload")
    field.promise(line.name in output, f"fleet reload does not name {line.name}: {output}")
    yield


def _added_and_removed(field: Field, strike: Strike) -> Iterator[None]:
    kept = copy.copy(field.plant.lines)
    (port,) = free_ports(1)
    guest = Line(f"guest_{strike.number}", port)
    field.plant.become([*kept, guest])
    try:
        field.plant.must("reload")
        field.promise(field.plant.worker(guest.name).ready, f"{guest.name} was added, but is not ready")
        yield
    finally:
        field.plant.become(kept)
    field.plant.must("reload")
    left = field.plant.family(guest.name)
    field.promise(not left, f"{guest.name} was removed, but processes are left: {left}")


_BREAKS = (
    "datasites: [{name: line_1",
    "datasites:\n  - {name: line_1, prot: 1}\n",
    "datasites:\n  - {name: line_1, port: 70000}\n",
    "",
)


@fault(weight=2, alone=True)
def reload_broken(field: Field, strike: Strike) -> Iterator[None]:
    """A broken fleet.yaml, `fleet reload`: refused with the place of the error, nothing changed"""
    head = f"version: 1\nstate_dir: {field.plant.state_folder.root}\nlog_dir: {field.plant.logs}\n"
    field.plant.file.write_text(head + _BREAKS[int(strike.draw * len(_BREAKS))])
    try:
        output = field.plant.must("reload", codes=(2,))
        field.promise("fleet.yaml" in output, f"fleet reload does not say where the file is broken: {output}")
        yield
    finally:
        field.plant.write()


@fault(weight=1, alone=True)
def reload_moved(field: Field, strike: Strike) -> Iterator[None]:
    """A fleet.yaml with another log_dir, `fleet reload`: refused as a whole"""
    line = field.plant.lines[strike.line % len(field.plant.lines)]
    moved = Line(line.name, line.port, "7s", {"CHAOS": "moved"})
    others = [moved if one is line else one for one in field.plant.lines]
    field.plant.write_other(others, field.plant.folder / "elsewhere")
    try:
        done = field.plant.run("reload")
        field.promise(done.returncode != 0, f"a reload that moves log_dir is not refused: {done.stdout}")
        yield
    finally:
        field.plant.write()
