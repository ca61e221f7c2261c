"""What a datasite needs from the software that it hosts: the one interface to PySyft, and to a later engine.

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
from fleet_common.contract import Access, AnyBounds, Approval, StatusDocument


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
    """An HTTP server in a thread of this process."""

    @property
    def alive(self) -> bool: ...

    def stop(self) -> None:
        """Stop serving."""


class HostedDatasite(Protocol):
    """A datasite that is open on its state. Its jobs and datasets can be worked on before it is served."""

    jobs: JobStore
    datasets: DatasetStore
    interrupted: list[str]
    """Names of the jobs that were interrupted when the last process ended."""

    def create_admin(self, login: AdminLogin) -> bool:
        """Add the user with role ADMIN; False when the e-mail exists already (its password stays as it is)."""

    def approve(self, approvals: tuple[Approval, ...]) -> None:
        """Approve such code from now on, including code that already waits."""

    def bound(self, bounds: AnyBounds) -> None:
        """Hold trainings within these bounds from now on. Raises OSError when they cannot be kept for the jobs."""

    def serve(self, listener: socket.socket, reception: Reception) -> Serving:
        """Start to answer HTTP on ``listener``."""

    def offer_status(self, said: Callable[[], dict[str, Any]]) -> None:
        """Offer ``factory.status`` to users through the engine's own API."""

    def handle(self, url: str, port: int, shutdown: Callable[[], None]) -> Any:
        """The handle that the engine's own launcher would return for a datasite at that address."""

    def close(self) -> None:
        """End the engine's threads, so that the interpreter can end."""


class Engine(Protocol):
    """Software that can host a datasite."""

    label: str
    """Name and version, for people."""
    zygote_program: str
    """The module to run as a zygote in a separate interpreter."""

    def work(self) -> Work:
        """How its jobs are run."""

    def open(self, hosting: Hosting, activity: Activity) -> HostedDatasite:
        """Open the datasite. From now on ``activity`` records every execution of user code in this process."""
