"""Whether a job's inputs exist: they may be results that another job still computes. Only reads."""

from __future__ import annotations

from typing import Any

from syft.service.action.action_object import Action
from syft.service.context import AuthedServiceContext
from syft.service.queue.queue_stash import ActionQueueItem, QueueItem
from syft.service.queue.zmq_producer import ZMQProducer
from syft.service.user.user_roles import ServiceRole
from syft.store.document_store_errors import NotFoundException
from syft.types.uid import UID

from datasite_worker.jobs.store import Unobtainable

NEVER = "it needs the result of a job that ended without one"


class Inputs:
    """PySyft's own rule of which jobs can run, without its producer; and, beyond it, of which never can."""

    contains_unresolved_action_objects = ZMQProducer.contains_unresolved_action_objects

    def __init__(self, server: Any) -> None:
        self.auth_context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
        self.action_service = server.services.action
        self._jobs = server.job_stash

    def are_there(self, item: QueueItem) -> bool:
        """Raises Unobtainable when they will never be; anything else, as of a database that is locked, says
        nothing of them."""
        if not isinstance(item, ActionQueueItem):
            return True
        action: Action = item.kwargs["action"]
        try:
            lacking = [one for one in (*action.args, *action.kwargs.values()) if self._is_lacking(one)]
            lost = any(self._is_lost(one) for one in lacking)
        except NotFoundException as error:
            raise Unobtainable(f"its input is not available: {error.public_message}") from error
        if lost:
            raise Unobtainable(NEVER)
        return not lacking

    def _is_lacking(self, argument: Any) -> bool:
        return bool(self.contains_unresolved_action_objects(argument).unwrap())

    def _is_lost(self, argument: Any) -> bool:
        """Whether no job is left to compute it. It is asked for last: a job's result is stored before its end is."""
        if not isinstance(argument, UID) or self.action_service.get(self.auth_context, argument).syft_resolved:
            return False  # something inside of it is waited for
        return not self._is_promised(argument) and self._is_lacking(argument)

    def _is_promised(self, argument: UID) -> bool:
        """An ended job's result is either stored, or not the promise of one any more."""
        try:
            job = self._jobs.get_by_result_id(self.auth_context.credentials, getattr(argument, "id", argument)).unwrap()
        except NotFoundException:
            return False
        return not job.resolved
