"""A datasite as a participant, reached with ``central.client``. No other module of this package uses the network.

Logs in at the first training; the client stays usable when the datasite restarts. It waits for the end of a training
without a limit, so that a datasite never trains twice at the same time. The federation decides how long a round waits,
and cancels what it does not wait for.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

from central.client import (
    ClientError,
    DatasiteClient,
    DoesNotFit,
    LocalUpdate,
    LoginFailed,
    NotApproved,
    NotSelfContained,
    Training,
    TrainingFailed,
    UnknownData,
    Unreachable,
    answers,
    connect,
)
from central.federated import columns
from central.federated.columns import Columns
from central.federated.participants import Away, Parameters, Refused
from central.federated.plan import Address

_LASTING = (DoesNotFit, LoginFailed, NotApproved, NotSelfContained, TrainingFailed)
_PATIENCE = 15.0
"""Seconds. A crashed datasite is back within one second."""

_PUBLISHED = 30.0
"""Seconds after which a missing dataset counts as missing for good: a new datasite publishes its files by then."""

Connect = Callable[..., DatasiteClient]
Probe = Callable[[str, int, str | None], bool]


class DatasiteLine:
    """``data``: the name of the dataset; "" if the datasite has only one. ``tell`` gets what people should know."""

    def __init__(
        self,
        address: Address,
        model: torch.nn.Module,
        loss: str,
        data: str,
        *,
        tell: Callable[[str], None] = lambda _: None,
        connecting: Connect = connect,
        probing: Probe = answers,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = address.name
        self._address = address
        self._model = model
        self._loss = loss
        self._data = data
        self._connect = connecting
        self._probe = probing
        self._sound = False
        self._beginning = threading.Lock()  # held while a training is asked for, and not known yet
        self._training: Training | None = None
        self._over = False
        self._now = now
        self._tell = tell
        self._mock: dict[str, Any] = {}
        self._checked: Columns | None = None
        self._client: DatasiteClient | None = None
        self._model_id = ""
        self._give_up = math.inf

    def answers(self) -> bool:
        """Whether the datasite answers now; within seconds."""
        where = self._address
        return self._probe(where.url, where.port, where.ca)

    def look(self) -> tuple[str, ...] | None:
        """The columns of its table, from the mock; None if the data are arrays. Raises as ``train`` does."""
        with self._told_apart():
            client = self._ready()
            self._mock = client.mock(self._named(client))
            return self._columns()

    def check(self, config: Mapping[str, Any]) -> None:
        """Raises Refused when the model and ``config`` do not fit this datasite's data, as far as its mock shows it."""
        table, wanted = self._columns(), columns.given(config)
        if table is not None:
            if problem := columns.problem(table, wanted):
                raise Refused(f"its data {problem}")
            if told := columns.unused(table, wanted):
                self._tell(f"{self.name}: {told}")
        with self._told_apart():
            client = self._ready()
            client.check(self._model_id, config, self._named(client), mock=self._mock)

    def train(self, parameters: Parameters, config: Mapping[str, Any], timeout: float) -> LocalUpdate:  # noqa: ARG002 - waits for the end, also after the round's deadline
        """Raises Refused, Away, and ClientError for errors that may pass."""
        with self._told_apart():
            client = self._ready()
            self._check_once(config)
            update = self._begun(client, parameters, config).result()
            self._training = None
            return update

    def _begun(self, client: DatasiteClient, parameters: Parameters, config: Mapping[str, Any]) -> Training:
        with self._beginning:
            if self._over:
                raise Refused("the training is over")
            self._take_back()  # one that the datasite went on with after it did not answer
            data = self._named(client)
            self._training = client.execute_federated_training(self._model_id, config, data, parameters=parameters)
            return self._training

    def cancel(self, *, for_good: bool = False) -> None:
        """Take back the training that is under way, if any. ``for_good``: and begin no other."""
        self._over = self._over or for_good
        with self._beginning:
            training = self._training
        if training is not None and self.answers():
            _cancelled(training)

    def _take_back(self) -> None:
        if self._training is not None:
            _cancelled(self._training)
            self._training = None

    def doing(self) -> str:
        training = self._training
        return "" if training is None else training.told()

    def _check_once(self, config: Mapping[str, Any]) -> None:
        """A datasite that does not fit is looked at anew in each round: its owner may correct the data."""
        wanted = columns.given(config)
        if self._checked == wanted:
            return
        self.look()
        self.check(config)
        self._checked = wanted

    def _columns(self) -> tuple[str, ...] | None:
        names = getattr(self._mock.get("data"), "columns", None)
        return None if names is None else tuple(map(str, names))

    def _named(self, client: DatasiteClient) -> str:
        return self._data or _only(client.datasets())

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Errors that may pass stay as they are; others become Refused or Away.

        The client is patient with a datasite that restarts. Nobody is patient twice with one that did not come back.
        """
        if not self._sound and not self.answers():
            raise Away("it does not answer")
        try:
            yield
            self._sound = True
        except Unreachable as error:
            self._sound = False
            raise Away(str(error)) from error
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


def _cancelled(training: Training) -> None:
    with suppress(ClientError):  # it has ended, or the datasite is down: then nothing runs, or nobody can tell
        training.cancel()


def _only(datasets: Mapping[str, Any]) -> str:
    if len(datasets) > 1:
        raise Refused(f"it has several datasets; name one with --data: {', '.join(datasets)}")
    if not datasets:
        raise UnknownData("it publishes no dataset")
    return next(iter(datasets))
