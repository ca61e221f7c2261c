"""One training at one datasite, from the request to what it hands back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from syft.service.action.action_object import ActionObject
from syft.service.job.job_stash import JobStatus
from syft.service.request.request import RequestStatus
from syft.types.errors import SyftException

from central.client.connection import ADMIN, Connection
from central.client.errors import Interrupted, NotApproved, TimedOut, TrainingFailed
from central.client.function import TrainingFunction, metrics_of
from central.client.training import FINAL, LocalUpdate, TrainingState, update_of

_OFTEN, _SELDOM = 0.1, 1.0
_STATES = {
    JobStatus.CREATED: TrainingState.QUEUED,
    JobStatus.PROCESSING: TrainingState.RUNNING,
    JobStatus.TERMINATING: TrainingState.RUNNING,
    JobStatus.COMPLETED: TrainingState.DONE,
    JobStatus.ERRORED: TrainingState.FAILED,
    JobStatus.INTERRUPTED: TrainingState.INTERRUPTED,
}


@dataclass(frozen=True, slots=True)
class Model:
    """What was uploaded, as its client remembers it."""

    name: str
    description: str
    maker: str
    loss: str
    parameters: dict[str, torch.Tensor] = field(repr=False)
    stored: Any  # the id of the parameters at the datasite


class Training:
    """One training at one datasite."""

    def __init__(
        self,
        connection: Connection,
        model: Model,
        function: TrainingFunction,
        code: Any,
        request: Any,
        inputs: dict[str, Any],
    ) -> None:
        self._connection = connection
        self._model = model
        self._code = code
        self._inputs = inputs
        self._job: Any = None
        self._direct: Future[Any] | None = None
        self._denied = ""
        self._why = ""
        self._result: Any = None
        self._state = TrainingState.WAITING
        self.function_name = function.name
        self.code_hash = function.hash
        """What the owner may list under ``approved_code``."""
        self.request_id = str(request)
        """PySyft's request that the owner approves; the same for every training of this model on this data."""
        self._request = request

    @property
    def state(self) -> TrainingState:
        """Where it is now, asked of the datasite; begins it when approval has come meanwhile."""
        return self.poll()

    def poll(self) -> TrainingState:
        """The same."""
        if self._state is TrainingState.WAITING and self._approved():
            self._begin()
        elif self._job is not None and self._state not in FINAL:
            self._look_at_job()
        elif self._direct is not None and self._direct.done():
            self._settle_direct(self._direct)
        return self._state

    def wait(self, timeout: float | None = None) -> TrainingState:
        """The state when it is final, or, after ``timeout`` seconds, the one it then has."""
        give_up = None if timeout is None else time.monotonic() + timeout
        pause = _OFTEN
        while (state := self.poll()) not in FINAL and not self._denied:
            if give_up is not None and time.monotonic() + pause > give_up:
                break
            time.sleep(pause)
            pause = min(pause * 1.2, _SELDOM)
        return state

    def result(self, timeout: float | None = None) -> LocalUpdate:
        """What it handed back; see ``DatasiteClient.get_parameters``."""
        if self.poll() is TrainingState.WAITING:
            raise self._not_approved()
        state, where = self.wait(timeout), self._connection.name
        if state is TrainingState.FAILED:
            raise TrainingFailed(f"the training {self.function_name} failed at {where}: {self._why}")
        if state is TrainingState.INTERRUPTED:
            raise Interrupted(f"{where} restarted while {self.function_name} ran there; train again")
        if state is not TrainingState.DONE:
            raise TimedOut(f"{self.function_name} at {where} is still {state} after {timeout:g} s; wait longer")
        return update_of(self._fetched(), self._model.parameters, metrics_of(self._model.loss), where)

    # --- inside ---

    def _approved(self) -> bool:
        if self._connection.role == ADMIN:
            return True
        request = self._connection.call("request.get_by_uid", self._request)
        status = self._connection.ask(lambda: request.status)
        if status is RequestStatus.REJECTED:
            self._denied = str(self._connection.ask(lambda: request.deny_reason) or "no reason given")
        return bool(status is RequestStatus.APPROVED)

    def _not_approved(self) -> NotApproved:
        what = f"{self._connection.name} has not approved {self.function_name}"
        if self._denied:
            what = f"{self._connection.name} has denied {self.function_name} ({self._denied})"
        return NotApproved(
            f"{what}; its owner approves request {self.request_id}, or lists {self.code_hash} under approved_code",
            code_hash=self.code_hash,
            request_id=self.request_id,
        )

    def _begin(self) -> None:
        if self._connection.queues():
            self._job = self._connection.ask(partial(self._call, blocking=False))
            self._state = TrainingState.QUEUED
        else:
            self._direct = _in_thread(lambda: self._connection.take_time(self._call))
            self._state = TrainingState.RUNNING

    def _call(self, **how: Any) -> Any:
        return self._connection.services.code.call(uid=self._code, **self._inputs, **how)

    def _look_at_job(self) -> None:
        job = self._connection.call("job.get", self._job.id)
        self._state = _STATES[job.status]
        if job.resolved and self._state not in FINAL:
            self._state = TrainingState.DONE
        self._result = job.result
        if self._state is TrainingState.FAILED:
            self._why = str(getattr(job.result, "message", "") or getattr(job.result, "value", "") or job.result)

    def _settle_direct(self, done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            self._state, self._result = TrainingState.DONE, done.result()
        elif isinstance(error, SyftException):
            self._state, self._why = TrainingState.FAILED, str(error.public_message)
        else:
            self._state, self._why = TrainingState.INTERRUPTED, str(error)

    def _fetched(self) -> Any:
        got = self._connection.ask(self._result.get)
        return got.syft_action_data if isinstance(got, ActionObject) else got


def _in_thread(what: Callable[[], Any]) -> Future[Any]:
    """``what``'s outcome; a daemon thread, so that an orchestrator may end without it."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(what())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the outcome
            future.set_exception(error)

    threading.Thread(target=run, name="training", daemon=True).start()
    return future
