"""The errors between an orchestrator and a datasite. Each message names the next step. Standard library only."""

from __future__ import annotations


class ClientError(Exception):
    """The base of these errors. The message says what happened and what to do next."""


class Unreachable(ClientError):
    """Nothing answered within the client's patience, or the server that answered is not a datasite."""


class LoginFailed(ClientError):
    """The datasite does not know this e-mail and password."""


class NotSelfContained(ClientError):
    """The model cannot be sent as source: it needs something that a datasite does not have."""


class UnknownData(ClientError):
    """The datasite publishes no dataset with that name, or the name does not say which asset of it."""


class DoesNotFit(ClientError):
    """The model, the configuration or the loss does not fit the data, as far as the mock shows it."""


class NotApproved(ClientError):
    """The owner has not approved the training function, or has denied it.

    The owner may list ``code_hash`` under ``approved_code``. ``request_id`` is PySyft's request.
    """

    def __init__(self, message: str, *, code_hash: str, request_id: str) -> None:
        super().__init__(message)
        self.code_hash = code_hash
        self.request_id = request_id


class TrainingFailed(ClientError):
    """The training raised an error at the datasite, or returned something that a training may not return."""


class Interrupted(ClientError):
    """The datasite restarted during the training. The training does not start again by itself."""


class TimedOut(ClientError):
    """The training did not end in time. It continues at the datasite."""
