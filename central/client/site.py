"""One datasite as an orchestrator sees it: upload a model, train it there, fetch parameters.

Speaks PySyft's own protocol, so that a plain PySyft 0.9.5 datasite serves as well. No data is ever asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from central.client.training import LocalUpdate, TrainingState


def connect(
    url: str,
    port: int | None = None,
    email: str = "",
    password: str = "",
    ca: str | Path | None = None,
    client_cert: str | tuple[str, str] | None = None,
    *,
    timeout: float = 60.0,
    patience: float = 30.0,
) -> DatasiteClient:
    """Log in to a datasite at ``url`` (http or https; ``port`` may stand in it instead).

    ``ca`` is a file with the certificates to trust instead of the system's, ``client_cert`` a file with certificate
    and key, or both as a pair. One answer may take ``timeout`` seconds; a datasite that is away is tried again for
    ``patience`` seconds, here and in every later call.

    Raises Unreachable and LoginFailed.
    """
    raise NotImplementedError


class DatasiteClient:
    """A logged-in user of one datasite, for months: it outlives restarts of the datasite. Made by ``connect``."""

    name: str
    """The datasite's name."""
    url: str

    def datasets(self) -> dict[str, tuple[str, ...]]:
        """The datasets that the datasite publishes, each with the names of its assets."""
        raise NotImplementedError

    def upload_model(
        self,
        model: torch.nn.Module,
        name: str,
        description: str = "",
        *,
        loss: str = "mse",
        init: Mapping[str, Any] | None = None,
    ) -> str:
        """Send ``model``'s parameters, and take its class's source for the training function; the model's id.

        ``loss`` is "mse", "l1", "cross_entropy" or "bce_with_logits". ``init`` holds the arguments that the model's
        class was made with, where it was made with any. The same model gives the same function, hence the same
        approval, in every process.

        Raises NotSelfContained when the class needs more than torch and its own module's plain functions.
        """
        raise NotImplementedError

    def code_hash(self, model_id: str, data: str) -> str:
        """What the owner lists under ``approved_code`` to let this model train on this data without asking."""
        raise NotImplementedError

    def execute_federated_training(
        self,
        model_id: str,
        training_config: Mapping[str, Any],
        data: str | Mapping[str, torch.Tensor],
        *,
        parameters: Mapping[str, torch.Tensor] | None = None,
    ) -> Training:
        """Ask for one training of the model where the data is; does not wait for it.

        ``data`` names a published dataset ("vibration") or one of its assets ("vibration/line_7"). ``parameters`` are
        what it begins from (default: what was uploaded).

        While the owner has not approved the function, the training waits for that, and begins when it is polled
        (``state``, ``wait``) after the approval.
        """
        raise NotImplementedError

    def get_parameters(self, training: Training | str, timeout: float | None = None) -> LocalUpdate:
        """What a training (or the last one of a model, by its id) handed back; waits for its end.

        Raises NotApproved at once where approval is missing, TrainingFailed, Interrupted, TimedOut and Unreachable.
        """
        raise NotImplementedError

    def train(
        self,
        model_id: str,
        parameters: Mapping[str, torch.Tensor],
        training_config: Mapping[str, Any],
        data: str | Mapping[str, torch.Tensor],
        *,
        timeout: float | None = None,
    ) -> LocalUpdate:
        """One round: begin from ``parameters``, train, fetch. Raises what ``get_parameters`` raises."""
        training = self.execute_federated_training(model_id, training_config, data, parameters=parameters)
        return self.get_parameters(training, timeout)


class Training:
    """One training at one datasite."""

    request_id: str
    """PySyft's request that the owner approves; the same for every training of this model on this data."""
    code_hash: str

    @property
    def state(self) -> TrainingState:
        """Where it is now, asked of the datasite; begins it when approval has come meanwhile."""
        raise NotImplementedError

    def wait(self, timeout: float | None = None) -> TrainingState:
        """The state when it is final, or, after ``timeout`` seconds, the one it then has."""
        raise NotImplementedError
