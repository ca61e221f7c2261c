"""The client processes from outside: started, stopped, and what they recorded. Their work is ``writer``'s."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_tools.chaos.plant import Line
from fleet_tools.chaos.world import Broken
from fleet_tools.processes import alive
from fleet_tools.waiting import until

_WRITER = [sys.executable, "-P", "-m", "fleet_tools.chaos.writer"]
_READING = 1800.0
_ENDING = 20.0


@dataclass(frozen=True, slots=True)
class Site:
    """Where a datasite is reached, and the file with its login."""

    line: Line
    login: Path

    @property
    def word(self) -> str:
        return f"{self.line.name}:{self.line.port}:{self.login}"


class Clients:
    """``folder`` keeps the record, and what the processes say. None runs when made."""

    def __init__(self, folder: Path, sites: list[Site], seed: int) -> None:
        folder.mkdir(parents=True)
        self.folder, self._sites, self._seed = folder, sites, seed
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when the first write to every datasite is acknowledged. Raises Broken."""
        command = [*_WRITER, "write", str(self.folder), str(self._seed)]
        with (self.folder / "writers.out").open("ab") as output:
            self._process = subprocess.Popen(
                [*command, *(site.word for site in self._sites)],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until(lambda: all(self.acknowledged(site.line.name) for site in self._sites), 240.0, "the first writes")

    def acknowledged(self, name: str) -> int:
        """How many writes to that datasite were acknowledged so far."""
        return sum(line["ok"] and line["op"] in ("dataset", "object") for line in self.lines(name))

    def lines(self, name: str) -> Iterable[dict[str, Any]]:
        with contextlib.suppress(OSError):
            for line in (self.folder / f"{name}.jsonl").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def job(self, name: str) -> list[int]:
        """Living processes that user code forked last on that datasite."""
        forked = [line["pids"] for line in self.lines(name) if line["ok"] and line["op"] == "job"]
        return [pid for pid in (forked[-1] if forked else []) if alive(pid)]

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)  # its children die with it
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDING)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def verify(self) -> dict[str, Any]:
        """By name: ``counts`` of what was done, and what of it is ``missing``. Raises Broken."""
        command = [*_WRITER, "verify", str(self.folder), *(site.word for site in self._sites)]
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=_READING,
            check=False,
            start_new_session=True,
        )
        (self.folder / "verify.out").write_text(done.stderr)
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError as error:
            raise Broken(f"cannot read the writes back: {done.stderr.strip()[-500:]}") from error
        return found
