"""The owner's actions at one datasite: list training requests, approve or deny them, add a data scientist.

Logs in as the datasite's ADMIN. Never approves by itself: ``approved_code`` in fleet.yaml does that.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from syft.service.policy.policy import Matches
from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from central.client.connection import ADMIN, Connection
from central.client.errors import ClientError
from central.client.function import FORMS
from fleet_common.contract import code_hash


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for the owner."""

    request_id: str
    function: str
    requester: str
    code_hash: str
    source: str = field(repr=False)
    reads: tuple[str, ...] = ()
    """The assets that the code will read, as dataset/asset."""
    training: bool = True
    """Whether it has the form of a training, for which a datasite enforces its owner's bounds."""


class Owner:
    """The owner's side of a datasite. Raises ClientError when the login is not an ADMIN."""

    def __init__(self, connection: Connection) -> None:
        if connection.role != ADMIN:
            raise ClientError(f"this user is {connection.role} at {connection.name}; log in as ADMIN")
        self._connection = connection

    def waiting(self) -> list[Waiting]:
        """The waiting requests, oldest first."""
        names = self._names()
        found = [self._waiting(one, names) for one in self._connection.call("request.get_all_pending")]
        return found[::-1]

    def approve(self, request_id: str) -> None:
        """Let this code run from now on, as often as its user wants."""
        self._connection.call("request.apply", uid=_uid(request_id))

    def deny(self, request_id: str, reason: str) -> None:
        """Refuse this code, or withdraw its approval. Its user sees ``reason``."""
        self._connection.call("request.undo", uid=_uid(request_id), reason=reason)

    def add_scientist(self, email: str, name: str, password: str | None = None) -> str:
        """Create a user who may send requests, but not approve them. Returns the password, generated unless given."""
        chosen = password or secrets.token_urlsafe(18)
        self._connection.call(
            "user.create",
            email=email,
            name=name,
            password=chosen,
            password_verify=chosen,
            role=ServiceRole.DATA_SCIENTIST,
        )
        return chosen

    def _names(self) -> dict[UID, str]:
        """The published assets, as dataset/asset."""
        datasets = self._connection.call("dataset.get_all")
        return {asset.action_id: f"{one.name}/{asset.name}" for one in datasets for asset in one.asset_list}

    def _waiting(self, request: Any, names: dict[UID, str]) -> Waiting:
        code = self._connection.ask(lambda: request.code)
        return Waiting(
            str(request.id),
            code.service_func_name,
            request.requesting_user_email or request.requesting_user_name,
            code_hash(code.raw_code),
            code.raw_code,
            tuple(names.get(one, f"an object that is in no dataset ({one})") for one in inputs_of(code)),
            set(code.input_kwargs) in map(set, FORMS),
        )


def inputs_of(code: Any) -> tuple[UID, ...]:
    """The objects, besides the user's own, that the code may read by its policy."""
    told = (code.input_policy_init_kwargs or {}).values()
    rules = [rule for by_name in told for rule in (by_name.values() if isinstance(by_name, Mapping) else (by_name,))]
    values = [rule.val if isinstance(rule, Matches) else rule for rule in rules]
    return tuple(one for one in values if isinstance(one, UID))


def _uid(request_id: str) -> UID:
    try:
        return UID.from_string(request_id)
    except ValueError as error:
        raise ClientError(
            f"{request_id!r} is not the id of a request; `python -m central.client requests` lists them"
        ) from error
