"""The benches of queued training: what a job costs to start, and what threads do when all datasites train at once.

The function itself reports times, on this machine's clock: PySyft's client asks only once a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fleet_tools import datasite
from fleet_tools.bench import plant
from fleet_tools.bench.figures import Figure, Section, Target, ratio
from fleet_tools.bench.plan import Plan
from fleet_tools.bench.plant import Fleet
from fleet_tools.waiting import until

_PATIENCE = 300
_SETTLED = 5.0
_ALONE = 1.0
"""Seconds in which nobody asks for the job: PySyft's client asks with a dozen calls, on the same cores."""
_WELL_KNOWN = ("info@openmined.org", "changethis")
"""The login of a plain PySyft server, which a datasite of fleet's does not have."""

_STAMP = """
import syft as sy

def stamp():
    import time

    return time.time()
"""

_TRAIN = """
import syft as sy

def train():
    import time

    import torch

    began = time.time()
    torch.manual_seed(0)
    features, target = torch.randn(512, 256), torch.randn(512, 1)
    model = torch.nn.Sequential(torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(features), target).backward()
        optimizer.step()
    return [began, time.time()]
"""


def jobs(plan: Plan) -> Section:
    with plan.room("jobs") as folder:
        plan.say(f"fleet up, {plan.lines} datasites")
        with plant.fleet(folder, plan.lines) as fleet:
            stamp = _offered(_owner(fleet, next(iter(fleet.ports))), folder, "stamp", _STAMP)
            _value(stamp())
            ours = tuple(_delay(stamp) for _ in plan.each_round("a queued job"))
    with plan.room("jobs-plain") as folder:
        plan.say("the plain way, 1 datasite")
        with plant.plain(folder, 1) as rival:
            stamp = _offered(_well_known(rival.ports[0]), folder, "stamp", _STAMP)
            theirs = tuple(_delay(stamp) for _ in plan.each_round("a queued job, the plain way", min(plan.rounds, 5)))
    begins = Figure("queued until the function runs", "ms", ours, Target(150))
    plain = Figure("the plain way, queued until the function runs", "ms", theirs, rival=True)
    notes = (
        "from when `client.code.f(blocking=False)` has returned its job until the first line of the function",
        "the client leaves the datasite alone for a second before and after, because its own requests use the same "
        "cores",
        "includes the job's process, its PySyft server and PySyft's own checks; a datasite's first job is not counted, "
        "because it prepares what all jobs share",
    )
    return Section("jobs", "a queued job starts", (begins, plain, ratio("times faster", plain, begins)), notes)


def threads(plan: Plan) -> Section:
    cores = os.cpu_count() or 1
    shares: list[float] = []
    unset: list[float] = []
    for name, defaults, kept in (("share", {}, shares), ("unset", {"resources": {"threads": cores}}, unset)):
        with plan.room(f"threads-{name}") as folder:
            plan.say(f"fleet up, {plan.lines} datasites, {name}")
            with plant.fleet(folder, plan.lines, defaults) as fleet:
                offered = [_offered(_owner(fleet, line), folder, "train", _TRAIN) for line in fleet.ports]
                time.sleep(_SETTLED)
                kept.extend(_all_at_once(offered) for _ in plan.each_round(f"all datasites train, {name}"))
    ours = Figure(f"{plan.lines} datasites train at once, threads by fleet", "s", tuple(shares))
    theirs = Figure(f"the same with {cores} threads each, torch's own default", "s", tuple(unset), rival=True)
    notes = (
        "from the first line of the first function to the last line of the last; every datasite does the same work",
    )
    faster = ratio("times faster than torch's default", theirs, ours)
    return Section("threads", "all datasites train at once", (ours, theirs, faster), notes)


def _owner(fleet: Fleet, line: str) -> Any:
    """PySyft's client of that datasite."""
    _wait_for(fleet.ports[line])
    return fleet.login(line)


def _well_known(port: int) -> Any:
    """PySyft's client of a plain server."""
    import syft as sy

    _wait_for(port)
    email, password = _WELL_KNOWN
    return sy.login(url="http://127.0.0.1", port=port, email=email, password=password)


def _wait_for(port: int) -> None:
    until(lambda: datasite.get(port, datasite.METADATA), 60.0, f"port {port}")


def _offered(client: Any, folder: Path, name: str, source: str) -> Callable[[], Any]:
    """The function in ``source``, submitted and approved; a call queues it. PySyft wants a file to read it from."""
    import importlib.util

    import syft as sy

    file = folder / f"{name}.py"
    file.write_text(source)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    client.code.request_code_execution(sy.syft_function()(getattr(module, name))).approve(approve_nested=True)
    call = getattr(client.code, name)
    return lambda: call(blocking=False)


def _value(job: Any) -> Any:
    told = job.wait(timeout=_PATIENCE)
    return told.get() if hasattr(told, "get") else told


def _delay(stamp: Callable[[], Any]) -> float:
    """Milliseconds."""
    time.sleep(_ALONE)
    job = stamp()
    queued = time.time()
    time.sleep(_ALONE)
    return max(0.0, 1000 * (float(_value(job)) - queued))


def _all_at_once(offered: list[Callable[[], Any]]) -> float:
    times = [_value(job) for job in [queue() for queue in offered]]
    return float(max(end for _, end in times) - min(began for began, _ in times))
