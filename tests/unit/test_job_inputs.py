"""Whether what a job works on is there, or never will be: what is not known now is asked again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from syft.store.db.errors import StashDBException
from syft.store.document_store_errors import NotFoundException
from syft.types.errors import SyftException
from syft.types.uid import UID

from datasite_worker.jobs.store import Unobtainable
from datasite_worker.pysyft.jobs import inputs as inputs_module
from datasite_worker.pysyft.jobs.inputs import NEVER, Inputs

pytestmark = pytest.mark.process  # it loads PySyft

LOCKED = StashDBException(private_message="OperationalError: database is locked")


class Item:
    def __init__(self) -> None:
        self.kwargs = {"action": SimpleNamespace(args=[UID()], kwargs={})}


class Store:
    """Every object is ``found``, or asking for it raises that."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def get(self, _context: Any, _uid: UID) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def get_by_result_id(self, _credentials: Any, uid: UID) -> Any:
        found = self.get(None, uid)
        return SimpleNamespace(unwrap=lambda: found)


def inputs(monkeypatch: pytest.MonkeyPatch, value: Any, job: Any) -> Inputs:
    """Of a job that works on ``value``, which ``job`` computes."""
    monkeypatch.setattr(inputs_module, "ActionQueueItem", Item)
    monkeypatch.setattr(Inputs, "_is_lacking", lambda self, uid: not self.action_service.get(None, uid).syft_resolved)
    made = Inputs.__new__(Inputs)
    made.auth_context = SimpleNamespace(credentials="root")  # only that is read
    made.action_service, made._jobs = Store(value), Store(job)
    return made


PROMISE = SimpleNamespace(syft_resolved=False)


@pytest.mark.parametrize(("value", "job"), [(LOCKED, NotFoundException()), (PROMISE, LOCKED)])
def test_a_database_that_cannot_be_asked_now_ends_no_job(monkeypatch: pytest.MonkeyPatch, value: Any, job: Any) -> None:
    """It is looked at again: neither the value nor its job is known to be gone."""
    with pytest.raises(SyftException) as raised:
        inputs(monkeypatch, value, job).are_there(Item())  # takes its place
    assert LOCKED is raised.value


@pytest.mark.parametrize(
    ("value", "job", "why"),
    [
        (NotFoundException(), NotFoundException(), "its input is not available: Item not found."),
        (PROMISE, NotFoundException(), NEVER),
        (PROMISE, SimpleNamespace(resolved=True), NEVER),
    ],
)
def test_what_will_never_be_there_is_said_to(monkeypatch: pytest.MonkeyPatch, value: Any, job: Any, why: str) -> None:
    """It was deleted, or nothing is left to compute it."""
    with pytest.raises(Unobtainable, match=why):
        inputs(monkeypatch, value, job).are_there(Item())  # takes its place


@pytest.mark.parametrize(("resolved", "there"), [(True, True), (False, False)])
def test_what_is_still_computed_is_waited_for(monkeypatch: pytest.MonkeyPatch, resolved: bool, there: bool) -> None:
    """And what is there is worked on."""
    made = inputs(monkeypatch, SimpleNamespace(syft_resolved=resolved), SimpleNamespace(resolved=False))
    assert there == made.are_there(Item())  # takes its place
