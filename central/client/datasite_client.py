"""The client of one datasite: upload a model, train it there, fetch parameters.

It speaks PySyft's own protocol, so it also works with a plain PySyft 0.9.5 datasite. It never fetches data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from syft.service.action.action_object import ActionObject
from syft.service.code.user_code import SubmitUserCode
from syft.service.policy.policy import Matches, MixedInputPolicy, OutputPolicyExecuteCount

from central.client import transport, trial
from central.client.connection import Connection
from central.client.errors import (
    ClientError,
    UnknownData,
)
from central.client.function import LOSSES, PAIR, TrainingFunction, training_function
from central.client.source import maker
from central.client.training import LocalUpdate, completed
from central.client.underway import Model, Training

Data = str | Mapping[str, torch.Tensor]

_SENT = "tensors of the orchestrator's own"
_UNLIMITED = 1_000_000_000


def connect(
    url: str,
    port: int | None = None,
    email: str = "",
    password: str = "",
    ca: str | Path | None = None,
    client_cert: transport.ClientCert | None = None,
    *,
    timeout: float = 60.0,
    patience: float = 30.0,
) -> DatasiteClient:
    """Log in to the datasite at ``url`` (http or https). Give the port in ``url`` or as ``port``.

    ``ca``: a file with the certificates to trust instead of the system's. ``client_cert``: a file with certificate and
    key, or a pair of files. An answer may take ``timeout`` seconds. This and every later call is retried for
    ``patience`` seconds while the datasite does not answer.

    Raises Unreachable, LoginFailed, ValueError for an invalid URL, FileNotFoundError for a missing certificate.
    """
    session = transport.session(ca, client_cert, timeout)
    return DatasiteClient(Connection(transport.parsed(url, port), email, password, session, patience))


def answers(
    url: str,
    port: int | None = None,
    ca: str | Path | None = None,
    client_cert: transport.ClientCert | None = None,
    *,
    timeout: float = 2.0,
) -> bool:
    """Whether a datasite answers at ``url`` within ``timeout`` seconds. Needs no login."""
    return transport.answers(transport.parsed(url, port), transport.session(ca, client_cert, timeout, timeout))


@dataclass(frozen=True, slots=True)
class _Place:
    """The data of a training: its ids by argument, and its names in the function. ``own``: tensors that the client
    sent, on which only an ADMIN may train."""

    name: str
    assets: tuple[str, ...]
    ids: dict[str, Any]
    own: bool = False


class DatasiteClient:
    """A logged-in user of one datasite, made by ``connect``. It stays usable when the datasite restarts."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._models: dict[str, Model] = {}
        self._last: dict[str, Training] = {}
        self._submissions: dict[tuple[str, frozenset[Any]], tuple[Any, Any]] = {}

    @property
    def name(self) -> str:
        """The datasite's name."""
        return self._connection.name

    @property
    def url(self) -> str:
        return self._connection.url

    @property
    def role(self) -> str:
        """The user's role in PySyft: DATA_SCIENTIST, DATA_OWNER or ADMIN."""
        return self._connection.role

    def datasets(self) -> dict[str, tuple[str, ...]]:
        """The datasets that the datasite publishes, with the names of their assets."""
        return {one.name: tuple(asset.name for asset in one.asset_list) for one in self._published()}

    def mock(self, data: str) -> dict[str, Any]:
        """What everybody sees in place of this data, by argument: a table or an array as "data", or arrays as "x" and
        "y". Its columns and types are those of the data, its values are not. Raises UnknownData and Unreachable.
        """
        ids = self._place(data).ids
        return {name: _content(self._connection.call("action.get_mock", one)) for name, one in ids.items()}

    def upload_model(
        self,
        model: torch.nn.Module,
        name: str,
        description: str = "",
        *,
        loss: str = "mse",
        init: Mapping[str, Any] | None = None,
    ) -> str:
        """Send the parameters of ``model``, and build the training function from the source of its class. Returns the
        model's id, which is valid for this client object.

        ``loss`` is "mse", "l1", "cross_entropy" or "bce_with_logits". ``init`` holds the arguments that the model was
        created with, if any. The same model gives the same function, and so needs one approval, in every process.

        Raises NotSelfContained when the class needs more than torch, numpy, the standard library, and the author's own
        plain functions and classes. Raises ValueError for an unknown loss.
        """
        if loss not in LOSSES:
            raise ValueError(f"unknown loss {loss!r}; known: {', '.join(LOSSES)}")
        source = maker(model, init)
        parameters = _plain(model.state_dict())
        stored = self._send(parameters)
        self._models[str(stored)] = Model(name, description, source, loss, parameters, stored)
        return str(stored)

    def code_hash(self, model_id: str, data: Data) -> str:
        """The hash that the owner lists under ``approved_code``, with the dataset, to approve this model in advance."""
        place = self._place(data) if isinstance(data, str) else _Place(_SENT, ("data",), {}, own=True)
        return self._function(self._model(model_id), place).hash

    def check(
        self,
        model_id: str,
        training_config: Mapping[str, Any],
        data: str,
        *,
        mock: Mapping[str, Any] | None = None,
    ) -> None:
        """Try the training in this process, on values in the form of the mock. Asks nothing of the datasite but the
        mock, unless it is given.

        Raises DoesNotFit, which names what is wrong: a missing column, a shape, a loss. Raises also UnknownData,
        Unreachable, and ValueError for an invalid configuration.
        """
        model, config = self._model(model_id), completed(training_config)
        seen = self.mock(data) if mock is None else mock
        name, _, asset = data.partition("/")
        function = training_function(model.name, model.maker, model.loss, name, (asset,) if "data" in seen else PAIR[0])
        trial.tried(function, model.parameters, config, seen)

    def execute_federated_training(
        self,
        model_id: str,
        training_config: Mapping[str, Any],
        data: Data,
        *,
        parameters: Mapping[str, torch.Tensor] | None = None,
    ) -> Training:
        """Start one training of the model where the data is. Does not wait for its end.

        ``data`` names a published dataset ("vibration") or one of its assets ("vibration/line_7"). It can also hold
        tensors "x" and "y", which the client sends; only an ADMIN may train on those. The training starts from
        ``parameters`` (default: the uploaded ones).

        If the owner has not approved the function yet, the training waits. It begins at the first poll (``state``,
        ``wait``) after the approval. An ADMIN needs no approval.

        Raises UnknownData, Unreachable, and ValueError for an invalid configuration.
        """
        model = self._model(model_id)
        config = completed(training_config)
        place = self._place(data)
        function = self._function(model, place)
        code, request = self._submitted(function, place, model)
        begins = model.stored if parameters is None else self._send(_fitting(parameters, model))
        inputs = {"parameters": begins, "config": self._send(config), **place.ids}
        training = Training(self._connection, model, function, code, request, inputs, place.name, config)
        self._last[model_id] = training
        training.poll()
        return training

    def get_parameters(self, training: Training | str, timeout: float | None = None) -> LocalUpdate:
        """The result of a training, or of the last training of a model, given by its id. Waits for the end.

        Raises NotApproved (at once), TrainingFailed, Interrupted, TimedOut and Unreachable.
        """
        if isinstance(training, str):
            if training not in self._last:
                raise ClientError(f"no training of model {training} here; call execute_federated_training first")
            training = self._last[training]
        return training.result(timeout)

    def train(
        self,
        model_id: str,
        parameters: Mapping[str, torch.Tensor],
        training_config: Mapping[str, Any],
        data: Data,
        *,
        timeout: float | None = None,
    ) -> LocalUpdate:
        """One round: start from ``parameters``, train, fetch the result. Raises the errors of ``get_parameters``."""
        training = self.execute_federated_training(model_id, training_config, data, parameters=parameters)
        return self.get_parameters(training, timeout)

    # --- inside ---

    def _model(self, model_id: str) -> Model:
        if model_id not in self._models:
            raise ClientError(f"unknown model {model_id}; use an id that upload_model of this client returned")
        return self._models[model_id]

    def _function(self, model: Model, place: _Place) -> TrainingFunction:
        return training_function(model.name, model.maker, model.loss, place.name, place.assets)

    def _send(self, value: Any) -> Any:
        """Store ``value`` at the datasite, for this user alone. Returns its id."""
        return self._connection.ask(lambda: ActionObject.from_obj(value).send(self._connection.syft)).id

    def _published(self) -> list[Any]:
        found: list[Any] = self._connection.call("dataset.get_all")
        return found

    def _place(self, data: Data) -> _Place:
        if not isinstance(data, str):
            return self._sent(data)
        name, _, asset = data.partition("/")
        published = {one.name: one for one in self._published()}
        if data in published:
            name, asset = data, ""
        if name not in published:
            raise UnknownData(f"{self.name} has no dataset {name!r}; it publishes: {_listed(published)}")
        assets = {one.name: one.action_id for one in published[name].asset_list}
        chosen = _chosen(assets, asset, f"{name!r} of {self.name}")
        return _Place(name, chosen, dict(zip(_arguments(chosen), (assets[one] for one in chosen), strict=True)))

    def _sent(self, data: Mapping[str, torch.Tensor]) -> _Place:
        if set(data) != {"x", "y"}:
            raise UnknownData("expected a dataset's name, or tensors as {'x': ..., 'y': ...}")
        return _Place(_SENT, ("data",), {"data": self._send(_plain(data))}, own=True)

    def _submitted(self, function: TrainingFunction, place: _Place, model: Model) -> tuple[Any, Any]:
        """PySyft's ids of this function on this data, and of the request to run it. Submits both if there are none.

        PySyft accepts a source once per user, with one policy. When data is published again, the same source is
        submitted with one more empty line at its end, which ``code_hash`` ignores.
        """
        key = (function.source, frozenset(() if place.own else place.ids.values()))
        if key not in self._submissions:
            self._submissions[key] = self._found_or_submitted(function, place, model)
        return self._submissions[key]

    def _found_or_submitted(self, function: TrainingFunction, place: _Place, model: Model) -> tuple[Any, Any]:
        known = self._known(function)
        if found := self._found(known, place, model):
            return found
        try:
            request = self._requested(self._code(function, place, "\n" * len(known)), model)
        except ClientError:
            if found := self._found(self._known(function), place, model):  # submitted, and only the answer was lost
                return found
            raise
        return request.code_id, request.id

    def _known(self, function: TrainingFunction) -> list[Any]:
        """This user's submissions of this source."""
        mine = self._connection.syft.verify_key
        return [
            code
            for code in self._connection.call("code.get_all")
            if code.raw_code.rstrip() == function.source.rstrip() and code.user_verify_key == mine
        ]

    def _found(self, known: list[Any], place: _Place, model: Model) -> tuple[Any, Any] | None:
        for code in known:
            if place.own or assets_of(code) == set(place.ids.values()):
                return code.id, self._request(code, model)
        return None

    def _request(self, code: Any, model: Model) -> Any:
        """The request for a submitted code. Made now if the datasite died between code and request."""
        for request in self._connection.call("request.get_all"):
            if request.code_id == code.id:
                return request.id
        return self._requested(code, model).id

    def _requested(self, code: Any, model: Model) -> Any:
        return self._connection.call("code.request_code_execution", code=code, reason=model.description)

    def _code(self, function: TrainingFunction, place: _Place, ending: str) -> SubmitUserCode:
        data = {name: dict if place.own else one for name, one in place.ids.items()}
        policy = self._connection.ask(
            lambda: MixedInputPolicy(client=self._connection.syft, parameters=dict, config=dict, **data)
        )
        return SubmitUserCode(
            code=function.source + ending,
            func_name=function.name,
            signature=function.signature,
            input_policy_type=MixedInputPolicy,
            input_policy_init_kwargs=policy.init_kwargs,
            output_policy_type=OutputPolicyExecuteCount,
            output_policy_init_kwargs={"limit": _UNLIMITED},
            input_kwargs=list(function.arguments),
        )


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies on the CPU that share no memory with ``tensors``. Raises ValueError for a type that PySyft cannot send."""
    if strange := sorted(name for name, one in tensors.items() if one.dtype is torch.bfloat16):
        raise ValueError(f"PySyft cannot send bfloat16 ({', '.join(strange)}); convert the model with model.float()")
    return {name: one.detach().cpu().clone().contiguous() for name, one in tensors.items()}


def _fitting(parameters: Mapping[str, torch.Tensor], model: Model) -> dict[str, torch.Tensor]:
    """``parameters`` in the model's types. Raises ValueError when they do not belong to the model."""
    wanted = {name: tuple(one.shape) for name, one in model.parameters.items()}
    given = {name: tuple(one.shape) for name, one in parameters.items()}
    if given != wanted:
        raise ValueError(f"these are not the parameters of {model.name}: expected {wanted}, not {given}")
    return {name: one.to(model.parameters[name].dtype) for name, one in _plain(parameters).items()}


def _chosen(assets: Mapping[str, Any], asset: str, dataset: str) -> tuple[str, ...]:
    """The asset, or pair of assets, to train on."""
    if asset:
        if asset not in assets:
            raise UnknownData(f"{dataset} has no asset {asset!r}; it has: {_listed(assets)}")
        return (asset,)
    if len(assets) == 1:
        return tuple(assets)
    for pair in PAIR:
        if set(pair) == set(assets):
            return pair
    raise UnknownData(f"{dataset} has several assets ({_listed(assets)}); name one, as 'dataset/asset'")


def _content(sent: Any) -> Any:
    return sent.syft_action_data if isinstance(sent, ActionObject) else sent


def _arguments(chosen: tuple[str, ...]) -> tuple[str, ...]:
    return ("data",) if len(chosen) == 1 else ("x", "y")


def assets_of(code: Any) -> set[Any]:
    """The ids of the assets that PySyft lets this code see."""
    rules = [rule for by_name in code.input_policy_init_kwargs.values() for rule in by_name.values()]
    return {rule.val for rule in rules if isinstance(rule, Matches)}


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
