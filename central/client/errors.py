"""What can go wrong between an orchestrator and a datasite, each with its next step. Standard library only."""

from __future__ import annotations


class ClientError(Exception):
    """Any of these; the message says what happened and what to do next."""


class Unreachable(ClientError):
    """Nobody answered within the client's patience, or what answered was no datasite."""


class LoginFailed(ClientError):
    """The datasite does not know this e-mail and password."""


class NotSelfContained(ClientError):
    """The model cannot travel as one text: it needs something that a datasite does not have."""


class UnknownData(ClientError):
    """The datasite publishes no dataset of that name, or the name does not say which of its assets."""


class NotApproved(ClientError):
    """The owner has not approved the training function, or has denied it.

    ``code_hash`` is what the owner may list under ``approved_code``; ``request_id`` is PySyft's request.
    """

    def __init__(self, message: str, *, code_hash: str, request_id: str) -> None:
        super().__init__(message)
        self.code_hash = code_hash
        self.request_id = request_id


class TrainingFailed(ClientError):
    """The training raised an error at the datasite, or handed back what no training may."""


class Interrupted(ClientError):
    """The datasite restarted while the training ran. It is not run again by itself."""


class TimedOut(ClientError):
    """The training was not done in time; it goes on at the datasite."""
