"""A supervisor made of values: the real HTTP of the control socket, and snapshots that a test writes by hand."""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fleet_common.unix_path import short_path
from supervisor.snapshot import FleetSnapshot, WorkerSnapshot

TAKEN_AT = "2026-03-01T12:00:00+00:00"


def worker(name: str = "line_a", **more: Any) -> WorkerSnapshot:
    """A datasite that is ready and well, but for ``more``."""
    values: dict[str, Any] = {
        "name": name,
        "state": "ready",
        "wanted": "up",
        "ready": more.get("state", "ready") == "ready",
        "pid": 4711,
        "port": 8080,
        "url": "http://localhost:8080",
        "device": "cpu",
        "uptime_s": 90.0,
        "restarts": 0,
        "restarts_by_cause": {},
        "last_exit": None,
        "reason": "",
        "registered": True,
        "registration": "registered",
        "dashboard_url": "http://127.0.0.1:5000",
        "last_heartbeat": "2026-03-01T11:59:48+00:00",
        "heartbeat_error": "",
        "cpu_percent": 1.5,
        "memory_mb": 108.0,
        "generation": 1,
        "since_s": 80.0,
        "next_attempt_s": None,
        "log": f"/f/logs/{name}.log",
    }
    return WorkerSnapshot(**{**values, **more})


def at_rest(name: str = "line_a", **more: Any) -> WorkerSnapshot:
    """A datasite without a process, down as wanted but for ``more``."""
    gone: dict[str, Any] = {"pid": None, "device": None, "uptime_s": None, "registered": None, "last_heartbeat": None}
    gone |= {"cpu_percent": None, "memory_mb": None, "state": "down", "wanted": "down"}
    return worker(name, **{**gone, **more})


def fleet(*datasites: WorkerSnapshot, **more: Any) -> FleetSnapshot:
    """A fleet of these datasites, without an embedded dashboard but for ``more``."""
    values: dict[str, Any] = {"fleet": "detroit", "config": "/f/fleet.yaml", "version": "0.1.0"}
    values |= {"supervisor_pid": os.getpid(), "supervisor_uptime_s": 100.0, "stopping": False}
    return FleetSnapshot(**{**values, "taken_at": TAKEN_AT, "revision": 1, "datasites": datasites, **more})


class FakeSupervisor:
    """``after_ask[name, request]`` are the changes, one dictionary each, that a request brings about."""

    def __init__(self, picture: FleetSnapshot) -> None:
        self.picture = picture
        self.asked: list[tuple[str, str]] = []
        self.after_ask: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.plan: dict[str, Any] = {"add": [], "remove": [], "restart": {}, "live": {}, "unchanged": [], "fleet": []}
        self.plan["refused"] = []
        self.refusal: tuple[int, str] | None = None  # what a reload is answered with, when set
        self.after_reload: list[FleetSnapshot] = []  # the pictures that a reload brings about
        self.reloads: list[str] = []
        self.went_down = threading.Event()
        self.hangs = False
        self.answer: tuple[int, bytes] | None = None  # given to everything, when set
        self.let_go = threading.Event()
        self._changed = threading.Condition()

    def change(self, name: str, **fields: Any) -> None:
        """A new revision, in which the datasite ``name`` differs in ``fields``."""
        with self._changed:
            datasites = tuple(replace(w, **fields) if w.name == name else w for w in self.picture.datasites)
            self.picture = replace(self.picture, datasites=datasites, revision=self.picture.revision + 1)
            self._changed.notify_all()

    def show(self, picture: FleetSnapshot) -> None:
        """Another picture, under a new revision."""
        with self._changed:
            self.picture = replace(picture, revision=self.picture.revision + 1)
            self._changed.notify_all()

    def reload(self, dry_run: bool) -> tuple[int, dict[str, Any]]:
        self.reloads.append("dry run" if dry_run else "reload")
        if self.refusal is not None:
            return self.refusal[0], {"error": self.refusal[1]}
        for picture in [] if dry_run else self.after_reload:
            self.show(picture)
        return (200 if dry_run else 202), self.plan

    def status(self, after: int, timeout: float) -> tuple[int, dict[str, Any]]:
        with self._changed:
            self._changed.wait_for(lambda: self.picture.revision > after, timeout)
            return 200, self.picture.to_dict()

    def ask(self, name: str, request: str) -> tuple[int, dict[str, Any]]:
        found = [datasite for datasite in self.picture.datasites if datasite.name == name]
        if not found:
            return 404, {"error": f"no datasite named {name}", "near": ["line_a"]}
        if self.picture.stopping:
            return 409, {"error": "the fleet is stopping"}
        self.asked.append((name, request))
        for fields in self.after_ask.get((name, request), []):
            self.change(name, **fields)
        return 202, {"name": name, "request": request, "generation": found[0].generation}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        after, timeout = int(query.get("after", ["-1"])[0]), float(query.get("timeout", ["10"])[0])
        self._send(*self.server.fake.status(after, timeout))

    def do_POST(self) -> None:
        if self.path == "/v1/down":
            self.server.fake.went_down.set()
            self._send(202, {"request": "down"})
            return
        if self.path.startswith("/v1/reload"):
            self._send(*self.server.fake.reload(self.path.endswith("dry_run=1")))
            return
        name, request = self.path.removeprefix("/v1/workers/").split("/")
        self._send(*self.server.fake.ask(name, request))

    def _send(self, code: int, body: dict[str, Any]) -> None:
        fake, text = self.server.fake, json.dumps(body).encode()
        if fake.hangs:
            fake.let_go.wait(30)
        if fake.answer is not None:
            code, text = fake.answer
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    fake: FakeSupervisor

    def get_request(self) -> tuple[Any, Any]:
        return super().get_request()[0], ("local", 0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no news."""


@contextmanager
def listening(state_dir: Path, *datasites: WorkerSnapshot, **more: Any) -> Iterator[FakeSupervisor]:
    """A fake supervisor that answers on ``state_dir``'s control socket, however deep that folder lies."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with short_path(state_dir / "control.sock") as address:
        server = _Server(address, _Handler)
    server.fake = FakeSupervisor(fleet(*datasites, **more))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.fake
    finally:
        server.fake.let_go.set()
        server.shutdown()
        server.server_close()
        (state_dir / "control.sock").unlink(missing_ok=True)
        thread.join(5)
