"""Who may call what: one pure decision for every call, blocking or queued, made again when a queued call runs.

PySyft 0.9.5 checks the caller's role only for blocking calls, and treats an unknown key as a guest, who may call 63
methods. For users, PySyft's own table of roles still decides; this module adds callers without an account.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from fleet_common.contract import Access

GUEST, ADMIN = "GUEST", "ADMIN"
GUEST_METHODS = frozenset(
    {
        "action.get_mock",
        "api.call_in_jobs",  # of which ``server`` leaves them ``factory.status``
        "blob_storage.read",
        "dataset.get_all",
        "dataset.search",
        "metadata.get_metadata",
    }
)
"""What callers without an account may call where guests are allowed: names, descriptions and mocks."""
QUEUED = frozenset({"code.call"})
"""What a call may have queued. PySyft would queue any method, and run it for anybody. The owner's endpoints become jobs
by a blocking call of ``api.call_in_jobs``."""
OWNERS_ALONE = frozenset({"migration._get_object"})
"""What PySyft's table gives to data scientists, and hands out any row of the database, accounts with their keys too."""
PEERS = "network."
"""Methods between servers. A datasite does not work with other servers; ``network.ping`` signs a caller's bytes with
the datasite's key."""
_ALWAYS = frozenset({"metadata", "queue"})
"""Not services: PySyft's server answers these itself."""
_IN_JOBS = {
    "ActionQueueItem": ("code.call", frozenset({"execute"})),
    "APIEndpointQueueItem": ("api.call", frozenset({"call", "call_private", "call_public"})),
}
"""What may run as a job, by the type of its place in the queue: the call that it came from, and its methods."""


def refusal(
    path: str, role: str, access: Access, roles: Mapping[str, Collection[str]], *, blocking: bool = True
) -> str:
    """Why the call is refused, as text for its caller; empty if it is allowed.

    ``roles``: by method, the names of the roles that PySyft's table lets call it.
    """
    why = _closed(path, role, access)
    if why or path in _ALWAYS:
        return why
    if path not in roles:
        return f"API call not in registered services: {path}"
    if role not in roles[path] or (path in OWNERS_ALONE and role != ADMIN):
        return f"As a `{role}`, you have no access to: {path}"
    if not blocking and path not in QUEUED:
        return f"{path} cannot be queued: call it with blocking=True."
    return ""


def _closed(path: str, role: str, access: Access) -> str:
    """Why nobody, or nobody without an account, may call that."""
    if path.startswith(PEERS):
        return f"This datasite does not work with other servers: {path} is closed."
    if role != GUEST:
        return ""
    if not access.guests:
        return "This datasite answers only users with an account. Log in, or ask its owner for an account."
    return "" if path in GUEST_METHODS else f"Without an account you may not call {path}."


def job_refusal(kind: str, method: str, role: str, roles: Mapping[str, Collection[str]]) -> str:
    """Why an item of the queue may not run; empty if it may. ``kind`` is the item's type, ``role`` the caller's now."""
    path, methods = _IN_JOBS.get(kind, ("", frozenset()))
    if method not in methods:
        return f"{kind} {method} cannot run as a job on this datasite"
    if role == GUEST or role not in roles.get(path, ()):
        return f"its caller now has the role {role.lower()} and may not call {path}"
    return ""


@cache
def pysyft_roles() -> dict[str, frozenset[str]]:
    """PySyft's own table: by method, the names of the roles that may call it. Imports fill it."""
    from syft.service.service import ServiceConfigRegistry

    configs: Mapping[str, Any] = ServiceConfigRegistry.get_registered_configs()
    return {path: frozenset(role.name for role in config.roles) for path, config in configs.items()}
