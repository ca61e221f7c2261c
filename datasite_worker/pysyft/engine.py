"""PySyft as the ``Engine`` of a datasite: what the rest of the worker asks for, in terms of PySyft."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import syft as sy

from datasite_worker import training_bounds
from datasite_worker.activity import Activity
from datasite_worker.approvals import Record
from datasite_worker.bounds import Connections
from datasite_worker.credentials import AdminLogin
from datasite_worker.data.store import DatasetStore
from datasite_worker.engine import Hosting, Reception
from datasite_worker.jobs.store import JobStore
from datasite_worker.jobs.zygote_life import Work
from datasite_worker.pysyft import bulk, containment, doors, durability, guard, plain_errors, server, uploads, wholeness
from datasite_worker.pysyft.approvals import Approvals
from datasite_worker.pysyft.datasets import PySyftDatasets
from datasite_worker.pysyft.jobs import runner
from datasite_worker.pysyft.jobs.store import PySyftJobs
from fleet_common.contract import AnyBounds, Approval


class PySyft:
    """An ``Engine``."""

    label = f"PySyft {sy.__version__}"
    zygote_program = "datasite_worker.pysyft.jobs.zygote_main"

    def work(self) -> Work:
        return runner

    def open(self, hosting: Hosting, activity: Activity) -> PySyftDatasite:
        containment.watch(activity)
        doors.close()
        durability.of_files()
        wholeness.install()
        bulk.install()
        plain_errors.install()
        made, record = server.make_server(hosting), Record(hosting.state)
        guard.set_up(made, record, {})
        return PySyftDatasite(hosting, made, record)


class PySyftDatasite:
    """A ``HostedDatasite``."""

    def __init__(self, hosting: Hosting, made: server.SettledDatasite, record: Record) -> None:
        self._name, self._state = hosting.name, hosting.state
        self._record = record
        self._server = made
        self._approvals: Approvals | None = None
        self.interrupted = made.interrupted
        self.jobs: JobStore = PySyftJobs(made)
        self.datasets: DatasetStore = PySyftDatasets(made)

    def create_admin(self, login: AdminLogin) -> bool:
        return server.create_admin(self._server, login)

    def approve(self, approvals: tuple[Approval, ...]) -> None:
        if self._approvals is None:
            self._approvals = Approvals(self._server, approvals, self._record)
        else:
            self._approvals.allow(approvals)

    def bound(self, bounds: AnyBounds) -> None:
        training_bounds.keep(self._state, bounds)
        guard.use(self._server, bounds)

    def serve(self, listener: socket.socket, reception: Reception) -> server.Serving:
        connections = Connections()
        app = server.make_app(
            self._server,
            reception.status,
            probe_key=reception.probe_key,
            refusals=reception.refusals,
            connections=connections,
        )
        uploads.guard(self._server, reception.limiter.refuses_upload)
        reception.limiter.pace(app)
        return server.Serving(app, listener, connections)

    def offer_status(self, said: Callable[[], dict[str, Any]]) -> None:
        server.offer_status(self._server, said)

    def handle(self, url: str, port: int, shutdown: Callable[[], None]) -> Any:
        handle = sy.orchestra.launch(name=self._name, deploy_to="remote", host=url, port=port)
        handle.shutdown = shutdown
        return handle

    def close(self) -> None:
        self._server.close()
