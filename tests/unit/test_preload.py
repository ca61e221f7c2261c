"""What the forkserver loads for all workers, and what a worker that is forked from it still does by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

PRELOADED = """
import gc, json, logging, os, sys, threading
import datasite_worker.preload, central.dashboard.preload
from syft.server.server import AuthServerContextRegistry, Server, ServerRegistry
from datasite_worker.pysyft import imports, rehearsal, server
"""

REHEARSED = """
def held():
    gc.collect()
    return {
        "threads": sorted(os.listdir("/proc/self/task")),
        "open": sorted(os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")),
        "servers": len(ServerRegistry.__server_registry__) + len(server._said),
        "contexts": len(AuthServerContextRegistry.__server_context_registry__),
        "alive": sum(issubclass(type(one), Server) for one in gc.get_objects()),
        "environment": dict(os.environ),
        "files": sorted(os.listdir(".")),
        "logging": logging.root.manager.disable,
        "elsewhere": sorted({name.partition(".")[0] for name in sys.modules} & (imports.NOTEBOOK | imports.CLUSTER)),
    }

before = held()
rehearsal.rehearse()
after = held()
import docker
from syft.service.worker import utils
found = {"before": before, "after": after, "threads": threading.active_count(), "frozen": gc.get_freeze_count()}
try:
    utils.docker.from_env()
except NotImplementedError as error:
    found["refusal"] = str(error)
print(json.dumps({**found, "docker": [docker.__file__ is not None, docker is utils.docker]}))
"""

WORKER = """
import http.client, socket
from pathlib import Path
from datasite_worker.datasite import FactoryDatasite

known = frozenset(sys.modules)

def ask(port, path):
    line = http.client.HTTPConnection("127.0.0.1", port)
    line.request("GET", path)
    answer = line.getresponse()
    answer.read()
    line.close()
    return answer.status

def private():
    fields = (line.split() for line in open("/proc/self/smaps_rollup"))
    return next(int(words[1]) for words in fields if words[0] == "Private_Dirty:") / 1024

def work():
    here = Path.cwd()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    datasite = FactoryDatasite("line", port, "127.0.0.1", dashboard_url="http://127.0.0.1:9", state_dir=here / "state",
                               log_dir=here / "logs", admin_password="a password of its own", threads=1)
    datasite.launch_datasite()
    datasite.register_with_dashboard()
    datasite._offer_status()
    answers = [ask(port, path) for path in ("/factory.status", "/api/v2/metadata")]
    datasite._look_around()
    taken = private()
    new = [name for name in list(sys.modules) if name not in known]
    print(json.dumps({"answers": answers, "new": new, "private": taken}), flush=True)

if os.fork() == 0:
    try:
        work()
    finally:
        os._exit(0)
os.wait()
"""


def _said(program: str, folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=folder, check=False)
    assert 0 == done.returncode, done.stderr
    assert "rehearsal" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


@pytest.mark.timeout(180)
def test_a_rehearsal_leaves_nothing_but_what_was_learned(tmp_path: Path) -> None:
    """No thread, no open file or socket, no server, no file, nothing in the environment: the parent is there to be
    forked."""
    (found,) = _said(PRELOADED + REHEARSED, tmp_path)
    assert found["before"] == found["after"]
    after = found["after"]
    assert (0, 0, 0) == (after["servers"], after["contexts"], after["alive"])
    assert ([], 1) == (after["files"], found["threads"])
    assert 100_000 < found["frozen"]
    assert [] == after["elsewhere"]  # what PySyft uses in notebooks and clusters only
    assert [True, False] == found["docker"]  # user code imports the real one; PySyft has a stand-in
    assert "a datasite does not load docker.from_env: it uses no cloud, cluster or container engine" == found["refusal"]


@pytest.mark.timeout(180)
def test_a_worker_imports_nothing_and_shares_most_of_its_memory(tmp_path: Path) -> None:
    """What it imports after the fork, and what it writes to, is its own, in each of the lines: 32 MiB here, where it
    was 43 before there was a rehearsal."""
    (found,) = _said(PRELOADED + WORKER, tmp_path)
    assert [200, 200] == found["answers"]
    assert [] == found["new"]
    assert 37 > found["private"]
