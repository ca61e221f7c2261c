"""What a datasite needs of the software that it hosts: the one seam to PySyft, and to whatever may follow it.

Protocols and values only. ``pysyft.engine`` implements them; nothing else in this package imports PySyft.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from datasite_worker.activity import Activity
from datasite_worker.credentials import AdminLogin, Identity
from datasite_worker.data.store import DatasetStore
from datasite_worker.jobs.store import JobStore
from datasite_worker.jobs.zygote_life import Work
from datasite_worker.means.limits import Limiter
from datasite_worker.refusals import Refusals
from fleet_common.contract import Access, StatusDocument


@dataclass(frozen=True, slots=True)
class Hosting:
    """What is hosted: the datasite ``name`` over its ``state`` folder. ``sessions``: so many jobs at the same time."""

    name: str
    identity: Identity
    state: Path
    dev_mode: bool
    auto_approval: bool
    sessions: int
    access: Access = field(default_factory=Access)


@dataclass(frozen=True, slots=True)
class Reception:
    """What serving needs beside the datasite itself. ``status`` is asked for each answer; ``probe_key`` is the
    supervisor's secret."""

    status: Callable[[], StatusDocument]
    probe_key: str
    refusals: Refusals
    limiter: Limiter


class Serving(Protocol):
    """HTTP that is answered by a thread of this process."""

    @property
    def alive(self) -> bool: ...

    def stop(self) -> None:
        """Answer no more."""


class HostedDatasite(Protocol):
    """A datasite that is open on its state. Its jobs and datasets can be worked on before it is served."""

    jobs: JobStore
    datasets: DatasetStore
    interrupted: list[str]
    """Names of the jobs that the death of the last process cut off."""

    def create_admin(self, login: AdminLogin) -> bool:
        """Add the user with role ADMIN; False when the e-mail is known already (its password is left as it is)."""

    def approve(self, hashes: tuple[str, ...]) -> None:
        """Code with these hashes is approved from now on, what waits already included."""

    def serve(self, listener: socket.socket, reception: Reception) -> Serving:
        """Answer HTTP on ``listener`` from now on."""

    def offer_status(self, said: Callable[[], dict[str, Any]]) -> None:
        """Users can ask for ``factory.status`` by the engine's own means."""

    def handle(self, url: str, port: int, shutdown: Callable[[], None]) -> Any:
        """What the engine's own launcher would return for a datasite that answers there."""

    def close(self) -> None:
        """End its threads, so that the interpreter can end."""


class Engine(Protocol):
    """Software that can host a datasite."""

    label: str
    """Name and version, for people."""
    zygote_program: str
    """The module that is a zygote, in an interpreter of its own."""

    def work(self) -> Work:
        """What its jobs are."""

    def open(self, hosting: Hosting, activity: Activity) -> HostedDatasite:
        """The datasite; every execution of user code in this process is told to ``activity`` from now on."""
