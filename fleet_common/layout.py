"""Where everything lies below a fleet's state folder. Only names: nothing here opens, makes or removes a file.

Whoever spells one of these names elsewhere spells it a second time: add it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DASHBOARD = "dashboard"
"""The embedded dashboard's folder, and its name among the workers."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The state folder of a fleet: fleet.yaml's ``state_dir``."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the one supervisor of the folder, for life; holds its pid."""
        return self.root / "supervisor.lock"

    @property
    def control_socket(self) -> Path:
        """The control API (HTTP)."""
        return self.root / "control.sock"

    @property
    def pulse_socket(self) -> Path:
        """Where workers send their status (datagrams)."""
        return self.root / "pulse.sock"

    @property
    def gpus(self) -> Path:
        """The assignment of GPUs, with its reasons."""
        return self.root / "gpus.json"

    @property
    def place(self) -> Path:
        """Which fleet.yaml the fleet was started with, and its names, for commands that cannot read that file."""
        return self.root / "place.json"

    @property
    def run(self) -> Path:
        """The folder of run files: one for each process that runs, for adoption."""
        return self.root / "run"

    @property
    def forkserver(self) -> Path:
        """The folder of the forkserver's sockets."""
        return self.root / "forkserver"

    @property
    def history(self) -> HistoryFolder:
        return HistoryFolder(self.root / "history")

    @property
    def datasites(self) -> Path:
        """The folder of all datasites' folders."""
        return self.root / "datasites"

    def worker(self, name: str) -> WorkerFolder:
        """A datasite's folder, or the embedded dashboard's."""
        return WorkerFolder(self.root / DASHBOARD if name == DASHBOARD else self.datasites / name)


@dataclass(frozen=True, slots=True)
class HistoryFolder:
    """What happened, and what a supervisor has to know of one that was killed."""

    root: Path

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def known(self) -> Path:
        """Which datasites have been ready before."""
        return self.root / "known-datasites.json"

    @property
    def ledger(self) -> Path:
        return self.root / "ledger.json"


@dataclass(frozen=True, slots=True)
class WorkerFolder:
    """What belongs to one worker."""

    root: Path

    @property
    def leash(self) -> Path:
        """A file that the worker, and all it forks, keep open for life: by it they are known as its own."""
        return self.root / "leash"

    @property
    def work(self) -> Path:
        """The working directory."""
        return self.root / "work"

    @property
    def probe_key(self) -> Path:
        """The secret whose holder is told the worker's whole status."""
        return self.root / "probe.key"

    @property
    def settings(self) -> Path:
        """Where the supervisor leaves ``LiveSettings`` before it sends SIGHUP."""
        return self.root / "settings.json"

    @property
    def identity(self) -> Path:
        """A datasite's identity and keys. Without it, its data is lost."""
        return self.root / "identity.json"

    @property
    def admin(self) -> Path:
        """The admin's login, as ``fleet credentials`` shows it."""
        return self.root / "admin.json"

    @property
    def admins(self) -> Path:
        """The logins of admins that fleet.yaml named before."""
        return self.root / "admins"

    @property
    def marker(self) -> Path:
        """That a datasite was made here, and which: without it, a folder that lost its files would look new."""
        return self.root / "marker.json"

    @property
    def pysyft(self) -> Path:
        """Where PySyft keeps what it writes, by the datasite's uid."""
        return self.root / "syft"

    def pysyft_database(self, uid: str) -> Path:
        return self.pysyft / uid / "db" / f"{uid}_json.db"

    def pysyft_databases(self) -> list[Path]:
        """The databases that there are, of whichever datasite."""
        return sorted(self.pysyft.glob("*/db/*_json.db"))

    @property
    def datasets(self) -> Path:
        """Which local files are published, under which ids."""
        return self.root / "datasets.json"

    @property
    def approvals(self) -> Path:
        """What fleet.yaml has approved, and how often it ran."""
        return self.root / "approvals.json"

    @property
    def training_bounds(self) -> Path:
        """The owner's bounds for trainings, for the jobs."""
        return self.root / "training-bounds.json"

    @property
    def approvals_lock(self) -> Path:
        """Held by whoever reads and replaces ``approvals``: the datasite, or a job."""
        return self.root / "approvals.lock"

    @property
    def database(self) -> Path:
        """The embedded dashboard's database."""
        return self.root / "dashboard.db"
