"""What survives the supervisor: one small file per running worker, so that the next supervisor can adopt it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from fleet_common import folders


@dataclass(frozen=True, slots=True)
class RunFile:
    """``created`` is the start time in clock ticks since boot, ``boot`` the kernel's boot id: pids and ticks mean
    nothing after a reboot. ``fingerprint`` tells whether the process still is what the configuration asks for.
    ``gpus``: the UUIDs it was launched with; None: by a supervisor that knew none."""

    name: str
    generation: int
    pid: int
    created: int
    boot: str
    fingerprint: str
    port: int = 0
    gpus: tuple[str, ...] | None = None


class RunFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unwritten: dict[str, RunFile] = {}
        folders.make(folder)

    def write(self, run: RunFile) -> None:
        """Written atomically: a reader sees the old file or the new one. On a full disk it is written later. It need
        not survive a power cut: no process does.

        It need not outlast a power cut: no process does."""
        try:
            folders.write_text(self._path(run.name), json.dumps(asdict(run)), lasting=False)
        except OSError:
            self._unwritten[run.name] = run
        else:
            self._unwritten.pop(run.name, None)

    def retry(self) -> None:
        """Write what could not be written before."""
        for run in list(self._unwritten.values()):
            self.write(run)

    def remove(self, name: str) -> None:
        self._unwritten.pop(name, None)
        self._path(name).unlink(missing_ok=True)

    def read_all(self) -> list[RunFile]:
        """Every readable run file of this boot; removes the others, which say nothing."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            run = _read(path)
            if run is not None and run.boot == boot_id():
                found.append(run)
            else:
                path.unlink(missing_ok=True)
        return found

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _read(path: Path) -> RunFile | None:
    try:
        values = json.loads(folders.read_text(path))
        known = {field.name for field in fields(RunFile)}
        read = RunFile(**{key: value for key, value in values.items() if key in known})
        return replace(read, gpus=None if read.gpus is None else tuple(read.gpus))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
