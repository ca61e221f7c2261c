"""A datasite as a participant, reached with ``central.client``. No other module of this package uses the network.

Logs in at the first training; the client stays usable when the datasite restarts. It waits for the end of a training
without a limit, so that a datasite never trains twice at the same time. The federation decides how long a round waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

from central.client import (
    DatasiteClient,
    LocalUpdate,
    LoginFailed,
    NotApproved,
    NotSelfContained,
    TrainingFailed,
    UnknownData,
    connect,
)
from central.federated.participants import Parameters, Refused
from central.federated.plan import Address

_LASTING = (LoginFailed, NotApproved, NotSelfContained, TrainingFailed)
_PATIENCE = 15.0
"""Seconds. A crashed datasite is back within one second."""

_PUBLISHED = 30.0
"""Seconds after which a missing dataset counts as missing for good: a new datasite publishes its files by then."""

Connect = Callable[..., DatasiteClient]


class DatasiteLine:
    """``data``: the name of the dataset; "" if the datasite has only one."""

    def __init__(
        self,
        address: Address,
        model: torch.nn.Module,
        loss: str,
        data: str,
        *,
        connecting: Connect = connect,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = address.name
        self._address = address
        self._model = model
        self._loss = loss
        self._data = data
        self._connect = connecting
        self._now = now
        self._client: DatasiteClient | None = None
        self._model_id = ""
        self._give_up = math.inf

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> LocalUpdate:  # noqa: ARG002 - waits for the end, also after the round's deadline
        """Raises Refused, and ClientError for errors that may pass."""
        try:
            client = self._ready()
            data = self._data or _only(client.datasets())
            return client.train(self._model_id, parameters, config, data)
        except _LASTING as error:
            raise Refused(str(error)) from error
        except UnknownData as error:
            if self._now() < self._give_up:
                raise
            raise Refused(str(error)) from error

    def _ready(self) -> DatasiteClient:
        if self._client is None:
            client = self._log_in()
            client.datasets()  # a user who may not see these cannot train, so fail before the upload
            name = type(self._model).__name__
            self._model_id = client.upload_model(self._model, name, "federated training", loss=self._loss)
            self._client, self._give_up = client, self._now() + _PUBLISHED
        return self._client

    def _log_in(self) -> DatasiteClient:
        where = self._address
        return self._connect(where.url, where.port, where.email, where.password, ca=where.ca, patience=_PATIENCE)


def _only(datasets: Mapping[str, Any]) -> str:
    if len(datasets) > 1:
        raise Refused(f"it has several datasets; name one with --data: {', '.join(datasets)}")
    if not datasets:
        raise UnknownData("it publishes no dataset")
    return next(iter(datasets))
