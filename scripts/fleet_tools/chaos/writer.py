"""The clients: one process per datasite that writes without pause through PySyft's public API. A program of its own.

    python -m fleet_tools.chaos.writer write FOLDER SEED NAME:PORT:LOGIN …   until SIGTERM
    python -m fleet_tools.chaos.writer verify FOLDER NAME:PORT:LOGIN …       reads everything back, prints JSON

FOLDER/NAME.jsonl is the record: what was acknowledged (the call returned without an error), and what failed, one JSON
object a line. A call that fails may have been carried out all the same; only what is acknowledged is a promise.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fleet_tools import datasite

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PAUSE = 0.15
_AFTER_ERROR = 0.4
_JOB_SECONDS = 45
_LOGIN_ANEW = 0.3
_JOBS_PATIENCE = 120.0


class Site(NamedTuple):
    name: str
    port: int
    login: Path

    @classmethod
    def parse(cls, word: str) -> Site:
        name, port, login = word.split(":", 2)
        return cls(name, int(port), Path(login))

    def client(self) -> Any:
        return datasite.login(self.port, self.login)


class Refused(Exception):
    """PySyft gave a wrong answer."""


# --- what a client does; each hands back what can be read again ---


def upload(client: Any, name: str, dice: random.Random) -> dict[str, Any]:
    import syft as sy

    values = _values(dice)
    data = sy.Asset(name="x", data=values, mock=values * 0)
    answer = client.upload_dataset(sy.Dataset(name=name, asset_list=[data]))
    if not isinstance(answer, sy.SyftSuccess):
        raise Refused(str(answer))
    return {"sum": float(values.sum())}


def send(client: Any, _name: str, dice: random.Random) -> dict[str, Any]:
    import syft as sy

    values = _values(dice)
    pointer = sy.ActionObject.from_obj(values).send(client)
    return {"id": str(pointer.id), "sum": float(values.sum())}


def call(client: Any, _name: str, dice: random.Random) -> dict[str, Any]:
    """Run the centre's function; it must compute what it should."""
    number = dice.randrange(1000)
    answer = client.code.chaos_double(number=number).get()
    if answer != 2 * number:
        raise Refused(f"2 x {number} is not {answer}")
    return {}


def fork(client: Any, _name: str, _dice: random.Random) -> dict[str, Any]:
    """User code that starts processes: one in the worker's group, one in a session of its own."""
    return {"pids": list(client.code.chaos_fork().get())}


def queue(client: Any, _name: str, _dice: random.Random) -> dict[str, Any]:
    """A job that runs for some seconds, in a process of its own."""
    return {"id": str(client.code.chaos_wait(blocking=False).id)}


OPERATIONS: dict[str, tuple[int, Callable[[Any, str, random.Random], dict[str, Any]]]] = {
    "dataset": (5, upload),
    "object": (6, send),
    "call": (4, call),
    "job": (1, fork),
    "queued": (1, queue),
}
"""With how often each is chosen; a login is what follows an error."""


def _values(dice: random.Random) -> Any:
    import numpy as np

    return np.array([float(dice.randrange(1000)) for _ in range(8)])


def teach(client: Any) -> None:
    """Submit and approve the functions that are called, where the datasite has them not yet."""
    import syft as sy

    def chaos_double(number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - PySyft ships its source
        return 2 * number

    def chaos_fork():  # type: ignore[no-untyped-def]  # noqa: ANN202 - PySyft ships its source
        import subprocess

        command = ["sleep", "SECONDS"]  # put in below
        return [subprocess.Popen(command, start_new_session=apart).pid for apart in (False, True)]

    def chaos_wait():  # type: ignore[no-untyped-def]  # noqa: ANN202 - PySyft ships its source
        import select

        return len(select.select([], [], [], 3.0))

    known = {code.service_func_name for code in client.code.get_all()}
    if "chaos_double" not in known:
        _submit(client, sy.syft_function(name="chaos_double")(chaos_double))
    if "chaos_wait" not in known:
        _submit(client, sy.syft_function(input_policy=sy.ExactMatch(), name="chaos_wait")(chaos_wait))
    if "chaos_fork" not in known:
        wrapped = sy.syft_function(input_policy=sy.ExactMatch(), name="chaos_fork")(chaos_fork)
        wrapped.code = wrapped.code.replace("SECONDS", str(_JOB_SECONDS))
        _submit(client, wrapped)


def _submit(client: Any, code: Any) -> None:
    client.code.request_code_execution(code).approve(approve_nested=True)


# --- writing ---


class Record:
    """Append-only; every line is in the file when ``add`` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def add(self, **values: Any) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), **values}) + "\n")


def write_for_ever(site: Site, folder: Path, seed: int) -> None:
    dice = random.Random(f"{seed}:{site.name}")  # noqa: S311 - what a client does next, not a secret
    record = Record(folder / f"{site.name}.jsonl")
    client: Any = None
    number = 0
    while True:
        number += 1
        client = _logged_in(site, record) if client is None else _one(client, f"{site.name}-{number}", dice, record)
        time.sleep(_PAUSE if client is not None else _AFTER_ERROR)


def _logged_in(site: Site, record: Record) -> Any:
    try:
        client = site.client()
        teach(client)
    except Exception as error:  # noqa: BLE001 - whatever PySyft raises is noted, and the client goes on
        record.add(ok=False, op="login", error=_short(error))
        return None
    record.add(ok=True, op="login")
    return client


def _one(client: Any, name: str, dice: random.Random, record: Record) -> Any:
    """One operation; the client to go on with. After an error mostly the same one: it has to go on working."""
    kind = dice.choices(list(OPERATIONS), [weight for weight, _ in OPERATIONS.values()])[0]
    try:
        outcome = OPERATIONS[kind][1](client, name, dice)
    except Exception as error:  # noqa: BLE001 - whatever PySyft raises is noted, and the client goes on
        record.add(ok=False, op=kind, name=name, error=_short(error))
        return None if dice.random() < _LOGIN_ANEW else client
    record.add(ok=True, op=kind, name=name, **outcome)
    return client


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:200]}"


def write(folder: Path, seed: int, sites: list[Site]) -> None:
    """Import PySyft once, then be one process for each site."""
    import syft as sy

    sy.SyftSuccess  # noqa: B018 - loaded now, shared by all that follow
    gc.freeze()
    children = [_born(site, folder, seed) for site in sites]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    raise SystemExit(f"the writers {children} ended unexpectedly")


def _born(site: Site, folder: Path, seed: int) -> int:
    parent = os.getpid()
    if child := os.fork():
        return child
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    write_for_ever(site, folder, seed)
    os._exit(1)


# --- reading back ---


def verify(folder: Path, sites: list[Site]) -> dict[str, Any]:
    return {site.name: _verified(site, folder) for site in sites}


def _verified(site: Site, folder: Path) -> dict[str, Any]:
    """A login of its own, and every acknowledged write read through it."""
    lines = [json.loads(line) for line in (folder / f"{site.name}.jsonl").read_text().splitlines()]
    kept = [line for line in lines if line["ok"]]
    client = site.client()
    missing = _missing_datasets(client, kept) + _missing_objects(client, kept) + _open_jobs(client, kept)
    counts: dict[str, int] = {}
    for line in lines:
        key = line["op"] if line["ok"] else "errors"
        counts[key] = counts.get(key, 0) + 1
    return {"counts": counts, "missing": missing}


def _missing_datasets(client: Any, kept: list[dict[str, Any]]) -> list[str]:
    there = {str(one.name): one for one in client.api.services.dataset.get_all()}

    def read(line: dict[str, Any]) -> Any:
        return there[line["name"]].assets[0].data

    return [f"dataset {line['name']}" for line in kept if line["op"] == "dataset" and not _holds(read, line)]


def _missing_objects(client: Any, kept: list[dict[str, Any]]) -> list[str]:
    import syft as sy

    def read(line: dict[str, Any]) -> Any:
        return client.api.services.action.get(sy.UID.from_string(line["id"])).syft_action_data

    wanted = [line for line in kept if line["op"] == "object"]
    return [f"object {line['name']} ({line['id']})" for line in wanted if not _holds(read, line)]


def _open_jobs(client: Any, kept: list[dict[str, Any]]) -> list[str]:
    """Every job that was queued has completed, or is marked interrupted; those that still wait are given time."""
    import syft as sy

    give_up = time.monotonic() + _JOBS_PATIENCE
    left = [line["id"] for line in kept if line["op"] == "queued"]
    while left and time.monotonic() < give_up:
        left = [uid for uid in left if not client.api.services.job.get(sy.UID.from_string(uid)).resolved]
        time.sleep(_PAUSE)
    return [f"job {uid} has no result and has not failed" for uid in left]


def _holds(read: Callable[[dict[str, Any]], Any], line: dict[str, Any]) -> bool:
    try:
        return bool(float(read(line).sum()) == line["sum"])
    except Exception as error:  # noqa: BLE001 - whatever PySyft raises, it is not there
        print(f"cannot read back {line['name']}: {_short(error)}", file=sys.stderr)
        return False


def main(words: list[str]) -> None:
    if words[0] == "write":
        write(Path(words[1]), int(words[2]), [Site.parse(word) for word in words[3:]])
    with contextlib.redirect_stdout(sys.stderr):
        found = verify(Path(words[1]), [Site.parse(word) for word in words[2:]])
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
