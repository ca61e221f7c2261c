"""The owner's standing approvals: code whose hash fleet.yaml lists is approved as soon as it is requested.

Only approves requests that would otherwise wait for the owner. It denies nothing and withdraws no approval. A hash
covers only a function's text, so everything else in a request must be harmless: no policy made of user code, no other
function than the one in the text, no data except published datasets and the requester's own.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterable
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

from fleet_common.contract import code_hash

logger = logging.getLogger(__name__)

_INPUT = (ExactMatch, MixedInputPolicy, EmpyInputPolicy)
_OUTPUT = (OutputPolicyExecuteCount, OutputPolicyExecuteOnce)


class Approvals:
    """Watches the requests of one PySyft server, including those that already wait."""

    def __init__(self, server: Any, approved: Iterable[str]) -> None:
        self._server = server
        self._approved: frozenset[str] = frozenset()
        self._context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
        self._requests = server.services.request
        self._submit = self._requests.submit
        self._requests.submit = self._submitted  # the instance's: PySyft asks it by name for every request
        self.allow(approved)

    def allow(self, approved: Iterable[str]) -> None:
        """Set the approved hashes, also for waiting requests. Earlier approvals stay."""
        self._approved = frozenset(approved)
        if self._approved:
            for request in self._requests.get_all(self._context):
                self._consider_calmly(request)

    def _submitted(self, *args: Any, **kwargs: Any) -> Any:
        request = self._submit(*args, **kwargs)
        self._consider_calmly(request)
        return self._requests.get_by_uid(self._context, request.id)

    def _consider_calmly(self, request: Request) -> None:
        """A request that cannot be read waits for the owner: it must not prevent the start of a datasite."""
        try:
            self._consider(request)
        except Exception:
            logger.warning("request %s cannot be checked; it stays pending", request.id, exc_info=True)

    def _consider(self, request: Request) -> None:
        code = _asked_for(request, self._context)
        if code is None or request.get_status(self._context) is not RequestStatus.PENDING:
            return
        found = code_hash(code.raw_code)
        who = request.requesting_user_email or request.requesting_user_name
        if found not in self._approved:
            if self._runs_anyway(request):
                return
            logger.info("waits for approval: %s by %s, %s, request %s", code.service_func_name, who, found, request.id)
        elif doubt := self._doubt(code):
            logger.warning(
                "waits for approval although fleet.yaml lists its code: %s by %s: %s",
                code.service_func_name,
                who,
                doubt,
            )
        else:
            self._requests.apply(self._context, request.id)
            logger.info("approved by fleet.yaml: %s by %s, %s", code.service_func_name, who, found)

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
