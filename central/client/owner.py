"""What the owner of a datasite does about training requests: look at them, approve, deny, and let a scientist in.

Speaks to one datasite as its ADMIN. Never approves by itself: that is for ``approved_code`` in fleet.yaml.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from syft.service.user.user_roles import ServiceRole
from syft.types.uid import UID

from central.client.connection import ADMIN, Connection
from central.client.errors import ClientError
from fleet_common.contract import code_hash


@dataclass(frozen=True, slots=True)
class Waiting:
    """A request that waits for the owner."""

    request_id: str
    function: str
    requester: str
    code_hash: str
    source: str = field(repr=False)


class Owner:
    """The owner's side of a datasite. Raises ClientError when the login is nobody's who may decide."""

    def __init__(self, connection: Connection) -> None:
        if connection.role != ADMIN:
            raise ClientError(f"this login is a {connection.role} at {connection.name}; log in as its ADMIN")
        self._connection = connection

    def waiting(self) -> list[Waiting]:
        """What waits, the oldest first."""
        found = [self._waiting(one) for one in self._connection.call("request.get_all_pending")]
        return found[::-1]

    def approve(self, request_id: str) -> None:
        """Let this code run, from now on, as often as its user asks."""
        self._connection.call("request.apply", uid=_uid(request_id))

    def deny(self, request_id: str, reason: str) -> None:
        """Refuse this code; its user is told ``reason``. Also takes back an approval."""
        self._connection.call("request.undo", uid=_uid(request_id), reason=reason)

    def add_scientist(self, email: str, name: str, password: str | None = None) -> str:
        """Make a user who may ask, and not decide; the password, drawn unless one is given."""
        drawn = password or secrets.token_urlsafe(18)
        self._connection.call(
            "user.create",
            email=email,
            name=name,
            password=drawn,
            password_verify=drawn,
            role=ServiceRole.DATA_SCIENTIST,
        )
        return drawn

    def _waiting(self, request: Any) -> Waiting:
        code = self._connection.ask(lambda: request.code)
        return Waiting(
            str(request.id),
            code.service_func_name,
            request.requesting_user_email or request.requesting_user_name,
            code_hash(code.raw_code),
            code.raw_code,
        )


def _uid(request_id: str) -> UID:
    try:
        return UID.from_string(request_id)
    except ValueError as error:
        raise ClientError(f"{request_id!r} is no request's id; see `python -m central.client requests`") from error
