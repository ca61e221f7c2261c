"""A line as a participant: the datasite at an address, spoken to by ``central.client``. The only room here that does.

Logs in when it is first asked; the client outlives restarts of the datasite. It waits for the end of a training however
long that takes, so that no line is asked twice at the same time; who waits for whom is the federation's affair.
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
"""Seconds; a datasite that crashed is back in one."""

_PUBLISHED = 30.0
"""Seconds after which a dataset that is not there will not come: one that just started publishes its files by then."""

Connect = Callable[..., DatasiteClient]


class DatasiteLine:
    """``data``: the dataset's name there; "" where the line has only one."""

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

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> LocalUpdate:  # noqa: ARG002 - a training that nobody waits for any longer is still one
        """Raises Refused, and ClientError for what may pass."""
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
            client.datasets()  # whoever may not see these need not send a model
            name = type(self._model).__name__
            self._model_id = client.upload_model(self._model, name, "federated training", loss=self._loss)
            self._client, self._give_up = client, self._now() + _PUBLISHED
        return self._client

    def _log_in(self) -> DatasiteClient:
        where = self._address
        return self._connect(where.url, where.port, where.email, where.password, ca=where.ca, patience=_PATIENCE)


def _only(datasets: Mapping[str, Any]) -> str:
    if len(datasets) > 1:
        raise Refused(f"which of its datasets? --data names one of {', '.join(datasets)}")
    if not datasets:
        raise UnknownData("it publishes no dataset")
    return next(iter(datasets))
