"""The owner's standing approvals: code that fleet.yaml approves for a dataset is approved as soon as it is requested.

Only approves requests that would otherwise wait for the owner. It denies nothing and withdraws no approval. A hash
covers only a function's text, so everything else in a request must be harmless: no policy made of user code, no other
function than the one in the text, no data except the dataset that is listed with it and the requester's own.
"""

from __future__ import annotations

import ast
import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from syft.service.code.user_code import UserCode, parse_user_code
from syft.service.context import AuthedServiceContext
from syft.service.policy.policy import (
    EmpyInputPolicy,
    ExactMatch,
    Matches,
    MixedInputPolicy,
    OutputPolicyExecuteCount,
    OutputPolicyExecuteOnce,
    UserOwned,
)
from syft.service.request.request import Request, RequestStatus, UserCodeStatusChange
from syft.service.user.user_roles import ServiceRole
from syft.types.errors import SyftException
from syft.types.uid import UID

from datasite_worker.approvals import Asked, Damaged, Reads, Record, not_covered, shown
from fleet_common.contract import Approval, code_hash

logger = logging.getLogger(__name__)

_INPUT = (ExactMatch, MixedInputPolicy, EmpyInputPolicy)
_OUTPUT = (OutputPolicyExecuteCount, OutputPolicyExecuteOnce)


class Approvals:
    """Watches the requests of one PySyft server, including those that already wait."""

    def __init__(self, server: Any, approved: Iterable[Approval], record: Record) -> None:
        self._server = server
        self._record = record
        self._approved: tuple[Approval, ...] = ()
        self._context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
        self._requests = server.services.request
        self._submit = self._requests.submit
        self._requests.submit = self._submitted  # the instance's: PySyft asks it by name for every request
        self.allow(approved)

    def allow(self, approved: Iterable[Approval]) -> None:
        """Set the approvals of fleet.yaml, also for waiting requests. What was approved earlier stays approved."""
        self._approved = tuple(approved)
        if not (self._approved or self._record.exists):
            return
        first = not self._record.exists
        try:
            self._record.allow(self._approved)
        except (Damaged, OSError) as error:
            logger.error("%s; until then, only the owner's calls run", error)
            self._approved = ()
            return
        for request in self._requests.get_all(self._context) if self._approved else ():
            self._consider_calmly(request, first=first)

    def _submitted(self, *args: Any, **kwargs: Any) -> Any:
        request = self._submit(*args, **kwargs)
        self._consider_calmly(request)
        return self._requests.get_by_uid(self._context, request.id)

    def _consider_calmly(self, request: Request, *, first: bool = False) -> None:
        """A request that cannot be read waits for the owner: it must not prevent the start of a datasite."""
        try:
            self._consider(request, first=first)
        except Exception:
            logger.warning("request %s cannot be checked; it stays as it is", request.id, exc_info=True)

    def _consider(self, request: Request, *, first: bool) -> None:
        code = _asked_for(request, self._context)
        status = request.get_status(self._context)
        if code is None or self._runs_anyway(request):
            return
        asked = self._asked(request, code)
        if status is RequestStatus.APPROVED and first:
            self._take_over(request, code, asked)
        elif status is RequestStatus.PENDING:
            self._decide(request, code, asked)

    def _asked(self, request: Request, code: UserCode) -> Asked:
        return Asked(code_hash(code.raw_code), reads_of(self._server, code), request.requesting_user_email or "")

    def _decide(self, request: Request, code: UserCode, asked: Asked) -> None:
        who = request.requesting_user_email or request.requesting_user_name
        told = f"{code.service_func_name} by {who}"
        listed = [one for one in self._approved if one.hash == asked.hash]
        covering = [one for one in listed if not not_covered(one, asked)]
        if not listed:
            logger.info("waits for approval: %s, %s, request %s, %s", told, asked.hash, request.id, shown(asked.reads))
        elif doubt := self._doubt(code) or self._limit(listed, covering, asked):
            logger.warning("waits for approval although fleet.yaml lists its code: %s: %s", told, doubt)
        else:
            self._record.grant(str(code.id), covering)  # before it is approved: it never runs without its limits
            self._requests.apply(self._context, request.id)
            logger.info("approved by fleet.yaml: %s, %s, %s", told, asked.hash, shown(asked.reads))

    def _limit(self, listed: list[Approval], covering: list[Approval], asked: Asked) -> str:
        """Why none of the listed approvals approves this request; empty if one does."""
        reasons = [self._record.spent(one, time.time()) for one in covering] or [not_covered(listed[0], asked)]
        return "" if "" in reasons else reasons[0]

    def _take_over(self, request: Request, code: UserCode, asked: Asked) -> None:
        """A datasite of an earlier release approved code for every dataset, and kept no record."""
        listed = [one for one in self._approved if one.hash == asked.hash]
        if covering := [one for one in listed if not not_covered(one, asked)]:
            self._record.grant(str(code.id), covering)
        elif listed:
            logger.warning(
                "approved earlier, and not by fleet.yaml now: %s by %s, request %s, %s; deny it, unless it may run",
                code.service_func_name,
                asked.by,
                request.id,
                shown(asked.reads),
            )

    def _runs_anyway(self, request: Request) -> bool:
        """PySyft runs an ADMIN's code without anybody's approval."""
        role = self._server.get_role_for_credentials(credentials=request.requesting_user_verify_key)
        return bool(role is ServiceRole.ADMIN)

    def _doubt(self, code: UserCode) -> str:
        """Why the hash does not cover the whole request; empty if it does."""
        if code.input_policy_type not in _INPUT or code.output_policy_type not in _OUTPUT:
            return "it comes with its own policies"
        if code.nested_codes or not _runs_its_text(code):
            return "the code that would run differs from the listed text"
        if not all(self._may_see(code, rule) for rule in _rules(code)):
            return "it uses data that is neither published nor the requester's own"
        return ""

    def _may_see(self, code: UserCode, rule: Any) -> bool:
        if isinstance(rule, UserOwned):
            return True
        uid = rule.val if isinstance(rule, Matches) else rule
        if not isinstance(uid, UID):
            return False
        published = self._server.services.dataset.get_assets_by_action_id(self._context, uid)
        return bool(published) or self._is_own(code, uid)

    def _is_own(self, code: UserCode, uid: UID) -> bool:
        try:
            found = self._server.services.action.stash.get_by_uid(self._server.verify_key, uid).unwrap()
        except SyftException:
            return False
        return bool(found.syft_client_verify_key == code.user_verify_key)


def _asked_for(request: Request, context: AuthedServiceContext) -> UserCode | None:
    """The request's code, if the request only asks to run one code."""
    if len(request.changes) != 1 or type(request.changes[0]) is not UserCodeStatusChange:
        return None
    code: UserCode = request.changes[0].linked_user_code.resolve_with_context(context).unwrap()
    return code


def _rules(code: UserCode) -> list[Any]:
    return [rule for by_name in (code.input_policy_init_kwargs or {}).values() for rule in by_name.values()]


def reads_of(server: Any, code: UserCode) -> Reads:
    """The assets that the code may read by its policy, also one of its own."""
    context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
    found = [
        (dataset.name, asset.name)
        for uid in _objects(code.input_policy_init_kwargs)
        for dataset in server.services.dataset.get_by_action_id(context, uid)
        for asset in dataset.asset_list
        if asset.action_id == uid
    ]
    return tuple(dict.fromkeys(found))


def _objects(value: Any) -> Iterator[UID]:
    """Every id among a policy's arguments."""
    if isinstance(value, Matches):
        yield value.val
    elif isinstance(value, UID):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _objects(inner)


def _runs_its_text(code: UserCode) -> bool:
    """Whether PySyft would run the function in the text, by its own name and with its own parameters. The submitter
    sends both separately from the text, and PySyft inserts them into what it runs."""
    try:
        (function,) = ast.parse(code.raw_code).body
    except (SyntaxError, ValueError):
        return False
    if not isinstance(function, ast.FunctionDef) or function.name != code.service_func_name:
        return False
    names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
    text = parse_user_code(code.raw_code, code.unique_func_name, function.name, names)
    return bool(text == code.parsed_code)
