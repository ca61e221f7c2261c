"""The orchestrator's client: connect to a datasite, upload a model, train it where the data is, fetch parameters."""

from central.client.datasite_client import DatasiteClient, answers, connect
from central.client.errors import (
    ClientError,
    DoesNotFit,
    Interrupted,
    LoginFailed,
    NotApproved,
    NotSelfContained,
    TimedOut,
    TrainingFailed,
    UnknownData,
    Unreachable,
)
from central.client.training import LocalUpdate, TrainingState
from central.client.underway import Training

__all__ = [
    "ClientError",
    "DatasiteClient",
    "DoesNotFit",
    "Interrupted",
    "LocalUpdate",
    "LoginFailed",
    "NotApproved",
    "NotSelfContained",
    "TimedOut",
    "Training",
    "TrainingFailed",
    "TrainingState",
    "UnknownData",
    "Unreachable",
    "answers",
    "connect",
]
