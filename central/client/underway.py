"""One training at one datasite, from the request to the result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
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
from central.client.errors import ClientError, Interrupted, NotApproved, TimedOut, TrainingFailed
from central.client.function import TrainingFunction, metrics_of
from central.client.training import FINAL, LocalUpdate, TrainingState, update_of

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.0
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
    """An uploaded model, as its client remembers it."""

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
        dataset: str,
        config: Mapping[str, Any],
    ) -> None:
        self._connection = connection
        self._model = model
        self._code = code
        self._inputs = inputs
        self._config = config
        self._job: Any = None
        self._direct: Future[Any] | None = None
        self._denied = ""
        self._cancelled = False
        self._why = ""
        self._result: Any = None
        self._state = TrainingState.WAITING
        self.function_name = function.name
        self.dataset = dataset
        self.code_hash = function.hash
        """The hash that the owner may list under ``approved_code``."""
        self.request_id = str(request)
        """PySyft's request that the owner approves. All trainings of this model on this data have the same one."""
        self._request = request

    @property
    def state(self) -> TrainingState:
        """The current state, from the datasite. Begins the training if it is approved by now."""
        return self.poll()

    def poll(self) -> TrainingState:
        """The same as ``state``."""
        if self._state is TrainingState.WAITING and self._approved():
            self._begin()
        elif self._job is not None and self._state not in FINAL:
            self._poll_job()
        elif self._direct is not None and self._direct.done():
            self._settle_direct(self._direct)
        return self._state

    def wait(self, timeout: float | None = None) -> TrainingState:
        """Wait for a final state, for at most ``timeout`` seconds. Returns the state."""
        give_up = None if timeout is None else time.monotonic() + timeout
        pause = _FIRST_PAUSE
        while (state := self.poll()) not in FINAL and not self._denied:
            if give_up is not None and time.monotonic() + pause > give_up:
                break
            time.sleep(pause)
            pause = min(pause * 1.2, _LONGEST_PAUSE)
        return state

    def cancel(self) -> TrainingState:
        """Take the training back, whether it waits or runs: it ends without a result. Returns the final state.

        A training that has ended stays as it is. Raises ClientError where the datasite cannot cancel it (plain PySyft
        without a worker, or a job that waits there), and Unreachable.
        """
        if self.poll() in FINAL:
            return self._state
        if self._direct is not None:
            raise ClientError(f"{self._connection.name} has no worker, and cannot cancel a training that runs")
        self._cancelled = True
        if self._job is None:
            self._state = TrainingState.INTERRUPTED
        else:
            self._kill()
        return self._state

    def result(self, timeout: float | None = None) -> LocalUpdate:
        """The result; see ``DatasiteClient.get_parameters``."""
        if self.poll() is TrainingState.WAITING:
            raise self._not_approved()
        state, where = self.wait(timeout), self._connection.name
        if state is TrainingState.FAILED:
            raise TrainingFailed(f"the training {self.function_name} failed at {where}: {self._why}")
        if state is TrainingState.INTERRUPTED and self._cancelled:
            raise Interrupted(f"{self.function_name} at {where} was cancelled")
        if state is TrainingState.INTERRUPTED:
            raise Interrupted(f"{where} restarted while {self.function_name} ran; start the training again")
        if state is not TrainingState.DONE:
            raise TimedOut(f"{self.function_name} at {where} is still {self.told()} after {timeout:g} s; wait longer")
        return update_of(self._fetched(), self._model.parameters, metrics_of(self._model.loss), where, self._config)

    def told(self) -> str:
        """The last known state in words, with the reason why a job does not begin."""
        if self._state is TrainingState.QUEUED:
            return "queued: other jobs take all training sessions there (fleet jobs shows them)"
        return str(self._state)

    # --- inside ---

    def _kill(self) -> None:
        try:
            self._connection.ask(self._job.kill)
        except ClientError:
            if self.poll() not in FINAL:  # else it ended meanwhile, or only the answer was lost
                raise
        self.poll()

    def _approved(self) -> bool:
        if self._connection.role == ADMIN:
            return True
        request = self._connection.call("request.get_by_uid", self._request)
        status = self._connection.ask(lambda: request.status)
        if status is RequestStatus.REJECTED:
            self._denied = str(self._connection.ask(lambda: request.deny_reason) or "no reason given")
        return bool(status is RequestStatus.APPROVED)

    def _not_approved(self) -> NotApproved:
        decision = f"{self._connection.name} has not approved {self.function_name}"
        if self._denied:
            decision = f"{self._connection.name} has denied {self.function_name} ({self._denied})"
        return NotApproved(
            f"{decision}; ask the owner to approve request {self.request_id}, "
            f"or to list {{hash: {self.code_hash}, dataset: {self.dataset}}} under approved_code",
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

    def _poll_job(self) -> None:
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
        result = self._connection.ask(self._result.get)
        return result.syft_action_data if isinstance(result, ActionObject) else result


def _in_thread(work: Callable[[], Any]) -> Future[Any]:
    """The outcome of ``work``, run in a daemon thread, so that an orchestrator can exit without waiting for it."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - the caller gets it from the future
            future.set_exception(error)

    threading.Thread(target=run, name="training", daemon=True).start()
    return future
