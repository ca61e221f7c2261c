"""The benches: each starts what it measures in its own folder, and returns a ``Section``.

A rival is measured in the same run, on the same machine, because figures of a shared machine mean nothing alone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from fleet_tools import datasite, processes
from fleet_tools.bench import board, plant, training, world
from fleet_tools.bench.figures import Figure, Section, Target, ratio
from fleet_tools.bench.plan import Bench, Plan
from fleet_tools.bench.plant import Fleet, Plain
from fleet_tools.bench.world import Unmeasured
from fleet_tools.waiting import until

FIRST_RESTART = {"restart": {"stable_after": "1s", "max_crashes": 1000, "backoff": "100ms"}}
"""After a second of readiness, earlier crashes do not count: every kill is a first crash, with an immediate restart."""
_APART = 2.0
_SETTLED = 10.0
_BACK = 120.0


# --- recovery -------------------------------------------------------------------------------------------------


def recovery(plan: Plan) -> Section:
    with plan.room("recovery") as folder:
        plan.say(f"fleet up, {plan.lines} datasites")
        with plant.fleet(folder, plan.lines, FIRST_RESTART) as fleet:
            timed = [_recover(fleet, number) for number in plan.each_round("SIGKILL of a datasite")]
    with plan.room("recovery-plain") as folder:
        plan.say("the plain way, 1 datasite")
        with plant.plain(folder, 1) as rival:
            theirs = [_recover_plain(rival) for _ in plan.each_round("SIGKILL of a plain server", min(plan.rounds, 3))]
    answers = Figure("SIGKILL until /factory.status answers from a new pid", "s", tuple(one for one, _ in timed))
    serves = Figure("SIGKILL until PySyft's /api/v2/metadata answers", "s", tuple(two for _, two in timed), Target(0.6))
    plain = Figure("the plain way, SIGKILL until /api/v2/metadata answers", "s", tuple(theirs), rival=True)
    notes = (
        f"{plan.lines} datasites under `fleet up`, killed in turn while the others serve; "
        f"`{_in_words(FIRST_RESTART)}`, so that each kill counts as a first crash: the restart is immediate, without "
        "a back-off",
        "the plain way: `sy.orchestra.launch` in a spawned process, whose parent starts it again as soon as it ends; "
        "the process that listens is killed",
    )
    faster = ratio("times faster than the plain way", plain, serves, Target(10, at_least=True))
    return Section("recovery", "a killed datasite serves again", (answers, serves, plain, faster), notes)


def _recover(fleet: Fleet, number: int) -> tuple[float, float]:
    """Seconds from SIGKILL until the datasite's status answers, and until PySyft does."""
    name = list(fleet.ports)[number % len(fleet.ports)]
    port = fleet.ports[name]
    until(fleet.all_ready, _BACK, "every datasite ready")
    time.sleep(_APART)
    pid = fleet.worker(name).pid or 0
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: fleet.answering_pid(name) not in (None, pid), _BACK, f"{name} after SIGKILL", world.LOOK)
    answered = time.monotonic() - killed
    until(lambda: datasite.get(port, datasite.METADATA), _BACK, f"PySyft of {name} after SIGKILL", world.LOOK)
    return answered, time.monotonic() - killed


def _recover_plain(rival: Plain) -> float:
    port = rival.ports[0]
    rival.wait()
    time.sleep(_APART)  # its launcher looks on for a moment after it answers
    pid = rival.server(port)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(pid) or not rival.answers(port), 10.0, "the kill", world.LOOK)
    until(lambda: rival.answers(port), _BACK, "the plain way after SIGKILL", world.LOOK)
    return time.monotonic() - killed


def _in_words(keys: Mapping[str, Any]) -> str:
    """As fleet.yaml has them, on one line."""
    return str(yaml.safe_dump(keys, default_flow_style=True, sort_keys=False, width=200)).strip()[1:-1]


# --- memory ---------------------------------------------------------------------------------------------------


def memory(plan: Plan) -> Section:
    with plan.room("memory") as folder:
        plan.say(f"fleet up, {plan.lines} datasites")
        with plant.fleet(folder, plan.lines) as fleet:
            _use_each(fleet.ports.values())
            ours = tuple(sum(world.pss(one.pid) for one in world.family(pid)) for pid in fleet.pids().values())
            shared = _shared(fleet)
    with plan.room("memory-plain") as folder:
        plan.say("the plain way, 2 datasites")
        with plant.plain(folder, 2) as rival:
            _use_each(rival.ports)
            _parent, *others = world.family(rival.parent.pid)
            theirs = sum(world.pss(one.pid) for one in others) / len(rival.ports)
    line = Figure(f"one datasite of {plan.lines}, with all its processes", "MiB", ours, Target(90))
    whole = Figure(
        "whole fleet with supervisor and dashboard, per datasite",
        "MiB",
        ((sum(ours) + sum(shared.values())) / len(ours),),
    )
    plain = Figure("the plain way, one datasite of 2, without its parent", "MiB", (theirs,), rival=True)
    once = tuple(Figure(f"once per fleet: {what}", "MiB", (size,)) for what, size in shared.items())
    notes = (
        "proportional set size (PSS): private pages, and each shared page divided by those that share it",
        f"measured {_SETTLED:g} s after every datasite answered PySyft's /api/v2/metadata; a client's login and its "
        "data add to it, as they do in the plain way",
    )
    return Section(
        "memory", "what a datasite takes", (line, whole, plain, ratio("times less", plain, whole), *once), notes
    )


def _use_each(ports: Iterable[int]) -> None:
    """Wait until every datasite answers a client's first request, then let it settle."""
    until(lambda: all(datasite.get(port, datasite.METADATA) for port in ports), _BACK, "PySyft of every datasite")
    time.sleep(_SETTLED)


def _shared(fleet: Fleet) -> dict[str, float]:
    """PSS of the processes that a fleet has once."""
    picture = fleet.look()
    found = {"supervisor": world.pss(picture.supervisor_pid)}
    helpers = [
        one for one in psutil.Process(picture.supervisor_pid).children() if "multiprocessing" in " ".join(one.cmdline())
    ]
    found["forkserver and resource tracker"] = sum(world.pss(one.pid) for one in helpers)
    if picture.dashboard is not None and picture.dashboard.pid is not None:
        found["dashboard"] = world.pss(picture.dashboard.pid)
    return found


# --- status ---------------------------------------------------------------------------------------------------


def status(plan: Plan) -> Section:
    with plan.room("status") as folder:
        plan.say("a throwaway supervisord")
        with _supervisord(folder / "supervisord", plan.lines) as rival:
            plan.say(f"fleet up, {plan.lines} datasites")
            with plant.fleet(folder, plan.lines) as fleet:
                timed = _time_commands(plan, folder, _commands(fleet, rival))
    ours = Figure(f"fleet status, {plan.lines} datasites", "s", timed["ours"], Target(0.4))
    floor = Figure("python -c 'import typer, rich, httpx'", "s", timed["imports"], rival=True)
    bare = Figure("python -c pass", "s", timed["bare"], rival=True)
    figures = [ours, floor, bare, ratio("of the time of its imports alone", ours, floor)]
    if "supervisorctl" in timed:
        theirs = Figure(f"supervisorctl status, {plan.lines} programs", "s", timed["supervisorctl"], rival=True)
        figures += [theirs, ratio("of the time of supervisorctl", ours, theirs)]
    notes = ["wall time of the whole process, from exec to exit, the commands in turn; a first round is not counted"]
    if rival is None:
        notes.append("supervisorctl was not measured: supervisord could not be installed here")
    return Section("status", "fleet status answers", tuple(figures), tuple(notes))


def _commands(fleet: Fleet, supervisorctl: list[str] | None) -> dict[str, list[str]]:
    chosen = {
        "ours": fleet.command("status"),
        "imports": [sys.executable, "-c", "import typer, rich, httpx"],
        "bare": [sys.executable, "-c", "pass"],
    }
    return chosen | ({"supervisorctl": supervisorctl} if supervisorctl else {})


def _time_commands(plan: Plan, folder: Path, commands: dict[str, list[str]]) -> dict[str, tuple[float, ...]]:
    timed: dict[str, list[float]] = {name: [] for name in commands}
    for command in commands.values():
        _time(command, folder)
    for _ in plan.each_round("status"):
        for name, command in commands.items():
            timed[name].append(_time(command, folder))
    return {name: tuple(times) for name, times in timed.items()}


def _time(command: list[str], folder: Path) -> float:
    began = time.monotonic()
    done = processes.run(command, folder)
    took = time.monotonic() - began
    if done.returncode:
        raise Unmeasured(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return took


@contextlib.contextmanager
def _supervisord(folder: Path, programs: int) -> Iterator[list[str] | None]:
    """``supervisorctl status`` for so many programs; None where it cannot be installed.

    In a virtual environment of its own, always: its package has the same name as ours.
    """
    folder.mkdir()
    tools = folder / "venv" / "bin"
    for command in (
        [sys.executable, "-m", "venv", str(folder / "venv")],
        [str(tools / "pip"), "install", "--quiet", "--disable-pip-version-check", "supervisor", "setuptools<81"],
    ):
        if processes.run(command, folder).returncode:
            yield None
            return
    conf = folder / "supervisord.conf"
    conf.write_text(_supervisord_conf(folder, programs))
    daemon = subprocess.Popen(
        [str(tools / "supervisord"), "-n", "-c", str(conf)],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    ask = [str(tools / "supervisorctl"), "-c", str(conf), "status"]
    try:
        until(lambda: processes.run(ask, folder).returncode == 0, 30.0, "supervisord", 0.2)
        yield ask
    finally:
        daemon.terminate()
        daemon.wait(30)


def _supervisord_conf(folder: Path, programs: int) -> str:
    socket = f"unix://{folder}/s.sock"
    head = f"[supervisord]\nlogfile={folder}/log\npidfile={folder}/pid\n[unix_http_server]\nfile={folder}/s.sock\n"
    rpc = "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
    each = "".join(f"[program:line_{number:02}]\ncommand=sleep 86400\n" for number in range(1, programs + 1))
    return f"{head}{rpc}[supervisorctl]\nserverurl={socket}\n{each}"


# --- idle -----------------------------------------------------------------------------------------------------


def idle(plan: Plan) -> Section:
    window = 10.0
    with plan.room("idle") as folder:
        plan.say(f"fleet up, {plan.lines} datasites")
        with plant.fleet(folder, plan.lines) as fleet:
            time.sleep(_SETTLED)
            pid, lines = fleet.look().supervisor_pid, list(fleet.pids().values())
            looks = [_share([pid], lines, window) for _ in plan.each_round(f"{window:g} s of observation")]
            held = world.pss(pid)
    many = plan.lines >= 16
    cpu = Figure(
        f"supervisor, {plan.lines} datasites: CPU", "%", tuple(own for own, _ in looks), Target(0.3 if many else 0.5)
    )
    size = Figure(f"supervisor, {plan.lines} datasites: memory (PSS)", "MiB", (held,), Target(45.0) if many else None)
    others = Figure("one datasite: CPU", "%", tuple(theirs / plan.lines for _, theirs in looks))
    notes = (
        f"percent of one core, from its CPU clock (nanoseconds), {window:g} s a round; "
        "no client asks the fleet for its status",
    )
    return Section("idle", "what an idle fleet costs", (cpu, size, others), notes)


def _share(supervisor: list[int], lines: list[int], window: float) -> tuple[float, float]:
    """Percent of one core that the two groups take during ``window`` seconds."""

    def spent() -> tuple[float, float]:
        return sum(map(world.cpu_seconds, supervisor)), sum(map(world.cpu_seconds, lines))

    began, before = time.monotonic(), spent()
    time.sleep(window)
    took, after = time.monotonic() - began, spent()
    return 100 * (after[0] - before[0]) / took, 100 * (after[1] - before[1]) / took


# --- detect ---------------------------------------------------------------------------------------------------


def detect(plan: Plan) -> Section:
    with plan.room("detect") as folder:
        plan.say(f"fleet up, {plan.lines} datasites")
        with plant.fleet(folder, plan.lines, FIRST_RESTART) as fleet:
            timed = [_detect(fleet, number) for number in plan.each_round("SIGKILL of a datasite")]
    kernel = Figure("SIGKILL until the kernel reports it (pidfd)", "ms", tuple(told for told, _ in timed), rival=True)
    knows = Figure("SIGKILL until a client of the supervisor knows", "ms", tuple(all_of for _, all_of in timed))
    after = tuple(max(0.0, all_of - told) for told, all_of in timed)
    own = Figure("detection: the part after the kernel's report", "ms", after, Target(10))
    notes = (
        "a long poll of `GET /v1/status?after=REVISION` on the control socket, started before the kill, until it "
        "reports that the process is gone; the kernel first frees the dead process's memory",
    )
    return Section("detect", "the supervisor notices an exit", (knows, kernel, own), notes)


def _detect(fleet: Fleet, number: int) -> tuple[float, float]:
    """Milliseconds from SIGKILL until a pidfd tells, and until the long poll does."""
    name = list(fleet.ports)[number % len(fleet.ports)]
    until(fleet.all_ready, _BACK, "every datasite ready")
    time.sleep(_APART)
    pid = fleet.worker(name).pid or 0
    told: dict[str, float] = {}
    watchers = [
        threading.Thread(target=_watch_kernel, args=(pid, told)),
        threading.Thread(target=_watch_supervisor, args=(fleet, name, pid, told)),
    ]
    for watcher in watchers:
        watcher.start()
    until(lambda: "polling" in told, 10.0, "the long poll")
    time.sleep(0.2)
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for watcher in watchers:
        watcher.join(_BACK)
    if not {"kernel", "supervisor"} <= told.keys():
        raise Unmeasured(f"the end of {name} was not reported")
    return (told["kernel"] - killed) * 1000, (told["supervisor"] - killed) * 1000


def _watch_kernel(pid: int, told: dict[str, float]) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        select.select([pidfd], [], [], _BACK)
        told["kernel"] = time.monotonic()
    finally:
        os.close(pidfd)


def _watch_supervisor(fleet: Fleet, name: str, pid: int, told: dict[str, float]) -> None:
    give_up = time.monotonic() + _BACK
    with fleet.client() as client:
        revision = client.status().revision
        told["polling"] = time.monotonic()
        while time.monotonic() < give_up:
            picture = client.status(revision, 10.0)
            revision = picture.revision
            if any(line.name == name and (line.pid != pid or not line.ready) for line in picture.datasites):
                told["supervisor"] = time.monotonic()
                return


# --- adoption -------------------------------------------------------------------------------------------------


def adoption(plan: Plan) -> Section:
    with plan.room("adoption") as folder:
        plan.say(f"fleet up, {plan.lines} datasites")
        with plant.fleet(folder, plan.lines) as fleet:
            tried = [_adopt(fleet) for _ in plan.each_round("SIGKILL of the supervisor")]
    kept = Figure(
        f"adopted: same pids, 0 restarts (of {plan.rounds})",
        "",
        (sum(same for same, _ in tried),),
        Target(plan.rounds, at_least=True),
    )
    took = Figure("fleet up --detach until all are adopted and ready", "s", tuple(seconds for _, seconds in tried))
    notes = (f"{plan.lines} datasites and the dashboard keep serving without a supervisor; time of the whole command",)
    return Section("adoption", "a new supervisor takes over what runs", (kept, took), notes)


def _adopt(fleet: Fleet) -> tuple[bool, float]:
    picture = fleet.look()
    before = {line.name: line.pid for line in picture.datasites}
    os.kill(picture.supervisor_pid, signal.SIGKILL)
    until(lambda: not psutil.pid_exists(picture.supervisor_pid), 10.0, "the supervisor's end", world.LOOK)
    began = time.monotonic()
    fleet.up()
    took = time.monotonic() - began
    after = {line.name: line.pid for line in fleet.look().datasites if line.restarts == 0 and line.ready}
    return before == after, took


BENCHES: dict[str, Bench] = {
    "recovery": Bench("from SIGKILL of a datasite until it serves again, and the plain way", 3, 9, recovery),
    "memory": Bench("memory of a datasite, shared costs separate, and the plain way", 8, 1, memory),
    "status": Bench("wall time of `fleet status`, and supervisorctl's", 8, 10, status),
    "idle": Bench("CPU and memory of an idle supervisor", 8, 3, idle),
    "detect": Bench("from SIGKILL until the supervisor reports it", 8, 10, detect),
    "jobs": Bench("from queueing a job until its function runs, and the plain way", 1, 10, training.jobs),
    "threads": Bench(
        "all datasites train at once, with threads by fleet and with torch's default", 8, 3, training.threads
    ),
    "dashboard": Bench(
        "p99 of a beat at the dashboard, 5,000 factories, and a plain dashboard's", 5000, 3, board.dashboard
    ),
    "adoption": Bench("SIGKILL of the supervisor, then adoption by the next one", 3, 20, adoption),
}
