"""PySyft's own ``factory.status``: for whoever is logged in, prompt, and true at the moment it is asked."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import pytest

from fleet_tools.ports import free_ports
from tests.real.harness import Fleet, answers, eventually

FIVE = ("factory_name", "factory_hostname", "factory_port", "device", "status")
PROMPT = 5.0
"""Seconds; answered as a job it would take 60 behind a training."""


def asked(client: Any) -> tuple[Any, ...]:
    """The five fields, once the client sees the endpoint; it must answer promptly then."""

    def there() -> bool:
        client.refresh()
        return hasattr(client.api.services, "factory")

    eventually(there)
    began = time.monotonic()
    told = client.api.services.factory.status()
    assert time.monotonic() - began < PROMPT
    if hasattr(told, "get"):
        told = told.get() if not isinstance(told, dict) else told
    return tuple(told[key] for key in FIVE)


def test_a_logged_in_client_is_answered(fleet: Fleet) -> None:
    """``client.api.services.factory.status()`` gives the five fields."""
    client = fleet.login("alpha", fleet.alpha)
    assert ("alpha", "localhost", fleet.alpha, "cpu", "running") == asked(client)


def test_it_answers_after_a_crash_too(fleet: Fleet) -> None:
    """The same client object, after a SIGKILL."""
    client = fleet.login("alpha", fleet.alpha)
    before = (answers(fleet.alpha) or {})["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: (told := answers(fleet.alpha)) and told["pid"] != before)
    assert ("alpha", "localhost", fleet.alpha, "cpu", "running") == asked(client)


@pytest.mark.slow
def test_it_tells_what_is_so_now(fleet: Fleet) -> None:
    """A line that moved to another port says the new one, not that of its first start."""
    fleet.down()
    (fleet.alpha,) = free_ports(1)
    fleet.write()
    fleet.up()
    assert ("alpha", "localhost", fleet.alpha, "cpu", "running") == asked(fleet.login("alpha", fleet.alpha))
