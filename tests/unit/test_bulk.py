"""Large calls: no text of what they carry, and memory that goes back."""

from __future__ import annotations

import threading

import pytest
from syft.client.api import SyftAPICall
from syft.types.uid import UID

from datasite_worker.pysyft import bulk
from datasite_worker.pysyft.bulk import LARGE, Relief

pytestmark = pytest.mark.process  # it loads PySyft


def test_no_text_is_made_of_what_is_uploaded() -> None:
    """PySyft logs each call: the text of 200 MB took more than half of the time of an upload."""
    bulk.install()
    call = SyftAPICall(server_uid=UID(), path="blob_storage.write_to_disk", args=[b"x" * 1000], kwargs={"data": "y"})
    assert "SyftAPICall(path=blob_storage.write_to_disk, blocking=True)" == str(call) == repr(call)


def test_memory_goes_back_once_after_large_calls() -> None:
    """Not after each of them, and not after small ones."""
    given: list[str] = []
    over = threading.Event()

    def give_back() -> None:
        given.append("memory")
        over.set()

    relief = Relief(give_back, quiet=0.1)
    relief.after(LARGE - 1)
    assert relief._timer is None
    for _ in range(5):
        relief.after(LARGE)
    assert over.wait(10)
    assert ["memory"] == given
