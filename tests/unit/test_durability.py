"""What is acknowledged is on the disk: how it gets there. ``tests/real/test_fleet.py`` traces a datasite that does it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from syft.service.blob_storage.service import BlobStorageService

from datasite_worker.pysyft import durability

pytestmark = pytest.mark.process  # it loads PySyft

FULL = 2


def test_every_connection_flushes_each_commit(tmp_path: Path) -> None:
    """Also one that is made later, and whatever PySyft has set on the first."""
    engine = create_engine(f"sqlite:///{tmp_path}/one.db")
    with engine.connect() as first:  # as PySyft's ``update_settings``
        first.execute(text("PRAGMA journal_mode = WAL"))
        first.execute(text("PRAGMA synchronous = 1"))
    durability.of_database(SimpleNamespace(db=SimpleNamespace(engine=engine)))
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(engine.connect()) for _ in range(3)]
        assert [FULL] * 3 == [one.execute(text("PRAGMA synchronous")).scalar() for one in made]
    engine.dispose()


def test_a_file_and_its_name_are_flushed_before_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What PySyft has written, when it has written it; a write that failed has no answer."""
    did: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: did.append(f"flush {Path(f'/proc/self/fd/{fd}').readlink().name}"))
    blob = tmp_path / "blob"

    def write(service: Any, context: Any, uid: str, data: bytes) -> str:
        did.append("write")
        blob.write_bytes(data)
        return "saved"

    found = SimpleNamespace(unwrap=lambda: SimpleNamespace(location=SimpleNamespace(path=str(blob))))
    service = SimpleNamespace(stash=SimpleNamespace(get_by_uid=lambda credentials, uid: found))
    context = SimpleNamespace(credentials="key")
    assert "saved" == durability._flushed(write)(service, context, "id", data=b"x")
    assert ["write", "flush blob", f"flush {tmp_path.name}"] == did


def test_pysyfts_own_writer_is_replaced_once() -> None:
    """A second datasite in the same process, in a notebook say, flushes no more often."""
    durability.of_files()
    once = BlobStorageService.write_to_disk
    durability.of_files()
    assert once is BlobStorageService.write_to_disk
