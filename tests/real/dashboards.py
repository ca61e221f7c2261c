"""A real dashboard process for tests, on a free port and in a folder of its own, and what is told to it.

``seed`` writes what an earlier dashboard would have left; nothing is stubbed.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from central.dashboard.store import Batch, Factory, FactoryStore, MeanLoad
from central.dashboard.wire import compact
from fleet_tools.ports import free_ports
from tests.real.harness import eventually


class Dashboard:
    """``python -m central.dashboard`` in ``folder``; it can be killed and started again."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.database = folder / "dashboard.db"
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._words = words
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "central.dashboard", "--port", str(self.port), "--db", str(self.database)]
        with (self.folder / "console").open("ab") as console:
            self.process = subprocess.Popen(
                [*command, *self._words], cwd=self.folder, stdout=console, stderr=subprocess.STDOUT
            )
        eventually(lambda: self.ask("/healthz")[0] == 200, 60.0)

    def end(self, number: int) -> int:
        """Send a signal; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """The status code and the JSON answered; 0 while nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.loads(refused.read() or b"null")
        except OSError:
            return 0, None

    def register(self, name: str, **more: Any) -> tuple[int, Any]:
        body = {"factory_name": name, "factory_hostname": "plant", "factory_port": 8080, "device": "cpu", **more}
        return self.ask("/register_factory", body)

    def beat(self, name: str, cpu: float = 30.0, **more: Any) -> tuple[int, Any]:
        load = {"cpu_usage": cpu, "memory_usage": 50.0, "disk_usage": 20.0, "network_latency": 1.5}
        return self.ask("/heartbeat", {"factory_name": name, "status": "operational", "current_load": load, **more})

    def factories(self) -> dict[str, Any]:
        return {one["factory_name"]: one for one in self.ask("/factories")[1]["factories"]}


@contextmanager
def a_dashboard(folder: Path, *words: str, seeded: Iterable[Factory] = ()) -> Iterator[Dashboard]:
    """A dashboard that answers, and is gone afterwards."""
    made = Dashboard(folder, *words)
    seed(made.database, seeded)
    try:
        made.start()
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait(15)


def a_factory(name: str, silent: float = 5.0, **more: Any) -> Factory:
    """One last heard of ``silent`` seconds ago; offline beyond 90 s."""
    now = time.time()
    status = "offline" if silent >= 90 else "late" if silent >= 45 else "running"
    load = {"cpu_usage": 40.0, "memory_usage": 55.0, "disk_usage": 30.0, "network_latency": 2.0}
    experiments = compact(more.pop("active_experiments", []))
    told: dict[str, Any] = {
        "hostname": "plant",
        "port": 8080,
        "device": "cpu",
        "reported_status": "operational",
        "capabilities": b"{}",
        "registered_at": now - 86400,
        "last_seen": now - silent,
        "last_heartbeat": now - silent,
        "current_load": compact(load),
        "active_experiments": experiments,
        "status": status,
        "status_since": now - silent,
    }
    return Factory(name, **(told | more))


def seed(database: Path, factories: Iterable[Factory]) -> None:
    """The factories, with an hour of load each."""
    several = list(factories)
    loads = [load for number, one in enumerate(several) for load in _hour(one, number)]
    store = FactoryStore(database)
    store.write(Batch(several, [], loads))
    store.close()


def _hour(factory: Factory, number: int) -> Iterator[MeanLoad]:
    end = int(factory.last_seen // 60)
    for minute in range(end - 59, end + 1):
        wave = 45 + 30 * math.sin(minute / 7 + number) + 15 * math.sin(minute / 2.3 + number * 1.7)
        yield MeanLoad(factory.name, minute * 60, 2, wave, 50.0, 30.0, 2.0)
