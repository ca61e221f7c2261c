"""Who may call what: one pure decision, asked for every call, blocking or queued, and again when a queued one runs.

PySyft 0.9.5 looks at the caller's role for blocking calls alone, and gives a key that nobody knows the role of a guest,
who may call 63 methods. Its own table of roles stays what decides about a user; this adds who has none.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from datasite_worker.contract import Access

GUEST = "GUEST"
GUEST_METHODS = frozenset(
    {
        "action.get_mock",
        "api.call_in_jobs",  # of which ``routes`` leaves the public ``factory.status``
        "blob_storage.read",
        "dataset.get_all",
        "dataset.search",
        "metadata.get_metadata",
    }
)
"""What somebody without an account may call where guests are let in: names, descriptions and mocks."""
QUEUED = frozenset({"api.call", "api.call_private", "api.call_public", "code.call"})
"""What a call may have queued: approved code, and endpoints that the owner has made. PySyft would queue any method, and
run it for anybody."""
PEERS = "network."
"""Methods between servers. A datasite has no peers; ``network.ping`` signs a caller's bytes with the datasite's key."""
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
    """Why that call is not answered, for its caller; empty: it is.

    ``roles``: by method, the names of the roles that PySyft's table lets call it.
    """
    if path.startswith(PEERS):
        return f"This datasite has no peers: {path} is closed."
    if role == GUEST and not access.guests:
        return "This datasite answers users only. Log in with an account of its owner's."
    if path in _ALWAYS:
        return "" if role != GUEST else f"Without an account you may not call {path}."
    if path not in roles:
        return f"API call not in registered services: {path}"
    if role not in roles[path]:
        return f"As a `{role}`, you have no access to: {path}"
    if role == GUEST and path not in GUEST_METHODS:
        return f"Without an account you may not call {path}."
    if not blocking and path not in QUEUED:
        return f"{path} cannot be queued: call it with blocking=True."
    return ""


def job_refusal(kind: str, method: str, role: str, roles: Mapping[str, Collection[str]]) -> str:
    """Why an item of the queue does not run; empty: it does. ``kind`` is the item's type, ``role`` the caller's now."""
    path, methods = _IN_JOBS.get(kind, ("", frozenset()))
    if method not in methods:
        return f"{kind} {method} is nothing that runs as a job here"
    if role == GUEST or role not in roles.get(path, ()):
        return f"its caller is {role.lower()} now, and may not call {path}"
    return ""


def pysyft_roles() -> dict[str, frozenset[str]]:
    """PySyft's own table: by method, the names of the roles that may call it."""
    from syft.service.service import ServiceConfigRegistry

    configs: Mapping[str, Any] = ServiceConfigRegistry.get_registered_configs()
    return {path: frozenset(role.name for role in config.roles) for path, config in configs.items()}
