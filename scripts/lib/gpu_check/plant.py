"""A fleet with GPUs in a temporary folder, and the clients of its lines."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import world
from bench.plant import status_pid
from bench.world import Unmeasured

_START = 240.0
_ANSWER = 90.0


class Site:
    """The owner's client of one line. It goes on over restarts of the line."""

    def __init__(self, state: Path, port: int) -> None:
        import syft as sy

        kept = json.loads((state / "admin.json").read_text())
        self._client = sy.login(url="http://127.0.0.1", port=port, email=kept["email"], password=kept["password"])
        self._known: set[str] = set()

    def ask(self, function: Any, **arguments: Any) -> dict[str, Any]:
        """Its answer, from the serving process."""
        return _answer(self._submitted(function)(**arguments))

    def ask_job(self, function: Any, **arguments: Any) -> dict[str, Any]:
        """Its answer, from a process of its own."""
        return _answer(self.queue(function, **arguments).wait(timeout=_ANSWER))

    def queue(self, function: Any, **arguments: Any) -> Any:
        """The job, which may wait."""
        return self._submitted(function)(blocking=False, **arguments)

    def _submitted(self, function: Any) -> Any:
        import syft as sy

        if function.__name__ not in self._known:
            wrapped = sy.syft_function(share_results_with_owners=True)(function)
            self._client.code.request_code_execution(wrapped).approve(approve_nested=True)
            self._known.add(function.__name__)
        return getattr(self._client.code, function.__name__)


def _answer(told: Any) -> dict[str, Any]:
    bare = told.get() if hasattr(told, "get") and not isinstance(told, dict) else told
    try:
        return dict(json.loads(str(bare)))
    except ValueError as error:
        raise Unmeasured(f"the datasite answered: {' '.join(str(bare).split())[-400:]}") from error


class Plant:
    """``asked``: the value of ``gpu:`` by line. Nothing runs when made."""

    def __init__(self, folder: Path, asked: Mapping[str, str]) -> None:
        self.folder = folder
        *ports, board = world.free_ports(len(asked) + 1)
        self.ports = dict(zip(asked, ports, strict=True))
        self.file = folder / "fleet.yaml"
        lines = "".join(f"  - {{name: {name}, port: {self.ports[name]}, gpu: {asked[name]}}}\n" for name in asked)
        self.file.write_text(
            f"version: 1\nname: gpu-check\ndashboard: {{mode: embedded, port: {board}}}\ndatasites:\n{lines}"
        )
        self._sites: dict[str, Site] = {}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "supervisor", "-f", str(self.file), *words]
        return world.run(command, self.folder, _START + 30)

    def up(self) -> None:
        """Raises Unmeasured."""
        done = self.run("up", "--detach", "--timeout", f"{_START:g}")
        if done.returncode:
            raise Unmeasured(f"fleet up ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-400:]}")

    def status(self) -> dict[str, Any]:
        return _told(self.run("status", "--json"))

    def line(self, name: str) -> dict[str, Any]:
        return next(line for line in self.status()["datasites"] if line["name"] == name)

    def pids(self) -> dict[str, int]:
        return {line["name"]: line["pid"] or 0 for line in self.status()["datasites"]}

    def supervisor(self) -> int:
        return int(self.status()["supervisor"]["pid"])

    def holders(self) -> dict[str, dict[str, Any]]:
        """What ``fleet gpus --json`` tells of each line."""
        return {line["name"]: line for line in _told(self.run("gpus", "--json"))["lines"]}

    def gpus(self, name: str) -> list[str]:
        return list(self.holders()[name]["gpus"])

    def site(self, name: str) -> Site:
        if name not in self._sites:
            self._sites[name] = Site(self.folder / ".fleet" / "datasites" / name, self.ports[name])
        return self._sites[name]

    def answering_pid(self, name: str) -> int | None:
        """Which process serves; None while none does."""
        return status_pid(self.folder / ".fleet" / "datasites" / name, self.ports[name])

    def started(self) -> bool:
        """Whether anything of it ever ran."""
        return bool(list((self.folder / ".fleet" / "run").glob("*.json"))) or bool(world.inhabitants(self.folder))

    def down(self) -> subprocess.CompletedProcess[str]:
        return self.run("down")


def _told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    try:
        return dict(json.loads(done.stdout))
    except ValueError as error:
        raise Unmeasured(f"fleet answered: {(done.stdout + done.stderr).strip()[-300:]}") from error


@contextmanager
def plant(folder: Path, asked: Mapping[str, str]) -> Iterator[Plant]:
    """A fleet that may be brought up, and is down afterwards."""
    folder.mkdir()
    made = Plant(folder, asked)
    try:
        yield made
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            made.down()
