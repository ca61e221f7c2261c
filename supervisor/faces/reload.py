"""``fleet reload``: tells the supervisor to apply the fleet.yaml, shows the plan, waits until it is done."""

from __future__ import annotations

from typing import Any

from supervisor.faces.client import ControlClient
from supervisor.faces.follow import SentRequest, by_name
from supervisor.faces.formatting import clean
from supervisor.record import OperatorRequest, Wanted
from supervisor.snapshot import FleetSnapshot

PlanDocument = dict[str, Any]
"""The document of ``policy.reconcile.Plan``."""


def in_words(plan: PlanDocument) -> str:
    """One line for each worker that changes, and one for all others."""
    lines = [f"  add      {clean(name)}" for name in plan["add"]]
    lines += [f"  remove   {clean(name)}" for name in plan["remove"]]
    lines += [f"  restart  {clean(name)}: {_keys(keys)} changed" for name, keys in plan["restart"].items()]
    lines += [f"  live     {clean(name)}: {_keys(keys)}, no restart" for name, keys in plan["live"].items()]
    lines += [f"  fleet    {_keys(plan['fleet'])}, no restart"] if plan["fleet"] else []
    if plan["unchanged"]:
        lines.append(f"  unchanged: {', '.join(map(clean, plan['unchanged']))}")
    return "\n".join(lines)


def is_empty(plan: PlanDocument) -> bool:
    return not any(plan[key] for key in ("add", "remove", "restart", "live", "fleet"))


def take_up(client: ControlClient) -> tuple[PlanDocument, list[SentRequest]]:
    """Apply the file; returns the plan, and the requests to wait for."""
    before = client.status()
    plan = client.reload(dry_run=False)
    return plan, _requests(plan, before)


def _requests(plan: PlanDocument, before: FleetSnapshot) -> list[SentRequest]:
    known = by_name(before)
    adds = [SentRequest(OperatorRequest.START, name, None, 0) for name in plan["add"]]
    removes = [SentRequest(OperatorRequest.STOP, name, known[name], 0) for name in plan["remove"] if name in known]
    restarts = [
        SentRequest(OperatorRequest.RESTART, name, known[name], known[name].generation)
        for name in plan["restart"]
        if name in known and known[name].wanted == Wanted.UP
    ]
    return [*removes, *restarts, *adds]


def _keys(keys: list[str]) -> str:
    return ", ".join(map(clean, keys))
