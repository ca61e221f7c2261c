"""The bench ``dashboard``: thousands of factories beat at a central dashboard that has one core, and at a plain one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fleet_tools import datasite
from fleet_tools.bench import world
from fleet_tools.bench.beats import Crowd, Seen
from fleet_tools.bench.figures import Figure, Section, Target, ratio
from fleet_tools.bench.plan import Plan
from fleet_tools.bench.world import Unmeasured
from fleet_tools.ports import free_ports
from fleet_tools.waiting import until

INTERVAL = 30.0
"""Seconds in which every factory beats once: one round."""
READERS = 2
LISTENERS = 3


@dataclass(slots=True)
class Measured:
    """One server: what was seen in each round, and what it took."""

    rounds: list[Seen]
    registering: float
    cpu: list[float]
    memory: float

    def percentile(self, hundredth: int) -> tuple[float, ...]:
        """Milliseconds, of each round."""
        return tuple(1000 * percentile(seen.beats, hundredth) for seen in self.rounds)

    def of_all(self, what: str, hundredth: int) -> float:
        """Milliseconds, of all rounds together; 0 where there is nothing."""
        values = [value for seen in self.rounds for value in getattr(seen, what)]
        return 1000 * percentile(values, hundredth) if values else 0.0


def percentile(values: list[float], hundredth: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[hundredth - 1]


def dashboard(plan: Plan) -> Section:
    words = ("-P", "-m", "central.dashboard", "--port", "PORT", "--db", "x.db", "--new-per-hour", "100000")
    ours = _measure(plan, "dashboard", words, "/healthz")
    theirs = _measure(
        plan,
        "dashboard-plain",
        ("-P", "-m", "fleet_tools.bench.plain_board", "PORT", "x.db"),
        "/openapi.json",
        listeners=0,
    )
    return Section(
        "dashboard", "thousands of factories send heartbeats", _figures(plan.lines, ours, theirs), _notes(plan, ours)
    )


def _figures(count: int, ours: Measured, theirs: Measured) -> tuple[Figure, ...]:
    p99 = Figure(
        f"a heartbeat of {count} factories, from due until answered: p99", "ms", ours.percentile(99), Target(50)
    )
    plain = Figure("the plain way: p99", "ms", theirs.percentile(99), rival=True)
    return (
        p99,
        Figure("same, median", "ms", ours.percentile(50)),
        Figure("same, slowest", "ms", tuple(1000 * max(seen.beats) for seen in ours.rounds)),
        Figure("heartbeats refused or not answered", "", tuple(float(seen.failed) for seen in ours.rounds), Target(0)),
        plain,
        Figure(
            "the plain way: heartbeats refused or not answered",
            "",
            tuple(float(seen.failed) for seen in theirs.rounds),
            rival=True,
        ),
        ratio("times lower p99 than the plain way", plain, p99),
        Figure("heartbeat answered until an open page shows it: p99", "ms", (ours.of_all("shown", 99),), Target(2000)),
        Figure("GET /factories, all of them: median", "ms", (ours.of_all("lists", 50),)),
        Figure("the plain way: GET /factories: median", "ms", (theirs.of_all("lists", 50),), rival=True),
        Figure("all register at once", "s", (ours.registering,)),
        Figure("the plain way: all register at once", "s", (theirs.registering,), rival=True),
        Figure("CPU, of its one core", "%", tuple(ours.cpu)),
        Figure("the plain way: CPU", "%", tuple(theirs.cpu), rival=True),
        Figure("memory (PSS)", "MiB", (ours.memory,)),
    )


def _notes(plan: Plan, ours: Measured) -> tuple[str, ...]:
    return (
        f"each of {plan.lines} factories sends a heartbeat every {INTERVAL:g} s, evenly spread, each on a connection "
        f"of its own; {READERS} readers get the whole list every 3 s, {LISTENERS} pages listen to /events",
        "the server is limited to one core, the load to another; the load does not wait for an answer before it sends "
        f"the next heartbeat, and was itself late by {ours.of_all('lags', 99):.1f} ms (p99), "
        "which the times above include",
        "the plain way: FastAPI's ordinary endpoints, SQLAlchemy sessions, one commit per heartbeat (WAL, not synced), "
        "the same readers, and no page that listens",
    )


def _measure(plan: Plan, name: str, words: tuple[str, ...], answers: str, listeners: int = LISTENERS) -> Measured:
    (port,) = free_ports(1)
    command = [sys.executable, *(word.replace("PORT", str(port)) for word in words)]
    served_by, loaded_by = _cores()
    with plan.room(name) as folder, _server(folder, command, served_by) as server, _held_to(loaded_by):
        until(lambda: datasite.get(port, answers), 120.0, f"{name} answers")
        return asyncio.run(_rounds(plan, name, Crowd(port, plan.lines), server.pid, listeners))


async def _rounds(plan: Plan, name: str, crowd: Crowd, pid: int, listeners: int) -> Measured:
    plan.say(f"{name}: {plan.lines} factories register")
    measured = Measured([], await crowd.register(), [], 0.0)
    if crowd.seen.failed:
        raise Unmeasured(f"{name}: {crowd.seen.failed} registrations were refused or not answered")
    async with crowd.watched(READERS, listeners):
        await asyncio.sleep(3.0)
        for _ in plan.each_round(f"{name}: {INTERVAL:g} s of heartbeats"):
            spent = world.cpu_seconds(pid)
            measured.rounds.append(await crowd.beat(INTERVAL))
            measured.cpu.append(100 * (world.cpu_seconds(pid) - spent) / INTERVAL)
    measured.memory = world.pss(pid)
    return measured


def _cores() -> tuple[set[int], set[int]]:
    """One for the server, the others for the load; where there is but one, both have it."""
    cores = sorted(os.sched_getaffinity(0))
    return {cores[0]}, set(cores[1:]) or {cores[0]}


@contextmanager
def _held_to(cores: set[int]) -> Iterator[None]:
    """This process on ``cores`` alone, with room for a connection for each factory."""
    before = os.sched_getaffinity(0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def _server(folder: Path, command: list[str], cores: set[int]) -> Iterator[subprocess.Popen[bytes]]:
    listed = ",".join(map(str, cores))
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            ["taskset", "-c", listed, *command], cwd=folder, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield server
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(15)
