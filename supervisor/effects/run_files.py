"""What survives the supervisor: one small file per running worker, so that the next supervisor can adopt it."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet_common import folders, state_files
from fleet_common.signals import is_same
from fleet_common.untrusted import Natural, Pid, Port, Unfit


@dataclass(frozen=True, slots=True)
class RunFile:
    """``created`` is the start time in clock ticks since boot, ``boot`` the kernel's boot id: pids and ticks mean
    nothing after a reboot. ``fingerprint`` tells whether the process still is what the configuration asks for.
    ``gpus``: the UUIDs it was launched with; None: by a supervisor that knew none."""

    name: str
    generation: Natural
    pid: Pid
    created: Natural
    boot: str
    fingerprint: str
    port: Port = 0
    gpus: tuple[str, ...] | None = None


class RunFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unwritten: dict[str, RunFile] = {}
        self._running: dict[str, RunFile] = {}
        folders.make(folder)

    def write(self, run: RunFile) -> None:
        """Written atomically: a reader sees the old file or the new one. On a full disk it is written later.

        It need not outlast a power cut: no process does."""
        self._running[run.name] = run
        try:
            state_files.write(self._path(run.name), asdict(run), lasting=False)
        except OSError:
            self._unwritten[run.name] = run
        else:
            self._unwritten.pop(run.name, None)

    def restore(self) -> None:
        """Write all of them again, where somebody has removed the folder. Raises OSError."""
        folders.make(self._folder)
        for run in list(self._running.values()):
            self.write(run)

    def retry(self) -> None:
        """Write what could not be written before."""
        for run in list(self._unwritten.values()):
            self.write(run)

    def remove(self, name: str) -> None:
        """On a disk that is read-only by now it stays, and says nothing: its process has ended."""
        self._unwritten.pop(name, None)
        self._running.pop(name, None)
        with contextlib.suppress(OSError):
            self._path(name).unlink(missing_ok=True)

    def read_all(self) -> list[RunFile]:
        """Every run file of this boot. Those of another boot say nothing and are removed; those that do not fit are set
        aside. The process of such a one is found by its leash."""
        found = []
        for path in _files(self._folder):
            run = _read(path)
            if isinstance(run, Unfit):
                state_files.put_aside(path, run, "its process, if it runs, is replaced and not adopted")
            elif run is not None and run.boot == boot_id():
                found.append(run)
                self._running[run.name] = run
            else:
                self.remove(path.stem)
        return found

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def running(folder: Path) -> dict[str, int]:
    """The pids of the workers that run, by name, for whoever only looks."""
    runs = [_read(path) for path in _files(folder)]
    known = [run for run in runs if isinstance(run, RunFile) and run.boot == boot_id()]
    return {run.name: run.pid for run in known if is_same(run.pid, run.created)}


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _read(path: Path) -> RunFile | Unfit | None:
    run = state_files.read(path, RunFile)
    return Unfit("it names another worker") if isinstance(run, RunFile) and run.name != path.stem else run


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
