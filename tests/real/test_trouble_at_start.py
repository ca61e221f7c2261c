"""A line that cannot start is put aside alone, with its reason; and what a restart and a reset leave as they are."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.real.harness import Fleet, a_fleet, answers, eventually


@pytest.mark.slow
def test_a_broken_identity_puts_one_line_aside(tmp_path: Path) -> None:
    """A datasite that drew a new identity would lose its data: refused with file and way out; the neighbour notices
    nothing. Mended, it comes back when asked."""
    with a_fleet(tmp_path) as fleet:
        neighbour = fleet.line("alpha")["pid"]
        identity = fleet.state("beta") / "identity.json"
        kept = identity.read_text()
        identity.write_text("{")
        os.kill(fleet.line("beta")["pid"], signal.SIGKILL)
        line = eventually(lambda: (line := fleet.line("beta"))["state"] == "quarantined" and line)
        assert f"{identity} cannot be used" in line["reason"]
        assert "restore it from a backup" in line["reason"]
        assert (neighbour, "ready") == (fleet.line("alpha")["pid"], fleet.line("alpha")["state"])
        identity.write_text(kept)
        assert 0 == fleet.run("restart", "beta").returncode
        assert eventually(lambda: (told := answers(fleet.beta)) and told["status"] == "running")


class Reaper:
    """Kills a line each time it comes up, for as long as it is open."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Reaper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            told = answers(self._port)
            if told is not None:
                with suppress(ProcessLookupError):
                    os.kill(told["pid"], signal.SIGKILL)


def test_a_line_that_dies_at_every_start_is_put_aside(tmp_path: Path) -> None:
    """Tried again with growing waits, then quarantined with its reason; its neighbour keeps its process."""
    with a_fleet(tmp_path) as fleet:
        neighbour = fleet.line("alpha")
        with Reaper(fleet.beta):
            line = eventually(lambda: (line := fleet.line("beta"))["state"] == "quarantined" and line, 300.0)
        assert "SIGKILL" in line["reason"] + str(line["last_exit"])
        assert line["restarts"] >= 3
        after = fleet.line("alpha")
        assert (neighbour["pid"], 0, "ready") == (after["pid"], after["restarts"], after["state"])


@pytest.mark.slow
@pytest.mark.parametrize("password", ["another-Password-1"])
def test_a_changed_password_outlives_crashes_and_a_reset_ends_it(tmp_path: Path, password: str) -> None:
    """What the admin set in PySyft stays through a SIGKILL; ``reset`` wipes at ``fleet up``, and never at a restart."""
    import syft as sy

    def login(fleet: Fleet, word: str) -> object:
        return sy.login(url="http://127.0.0.1", port=fleet.alpha, email="admin@pdm-factory.com", password=word)

    with a_fleet(tmp_path) as fleet:
        fleet.login("alpha", fleet.alpha).account.set_password(password, confirm=False)
        crash(fleet)
        assert login(fleet, password) is not None
        identity = (fleet.state("alpha") / "identity.json").read_text()
        fleet.down()
        fleet.extra = ", reset: true"
        fleet.write()
        fleet.up("--yes")
        wiped = (fleet.state("alpha") / "identity.json").read_text()
        assert identity != wiped
        with pytest.raises(Exception, match=r"(?i)password|credential|user|login|not found"):
            login(fleet, password)
        crash(fleet)
        assert wiped == (fleet.state("alpha") / "identity.json").read_text()
        assert fleet.login("alpha", fleet.alpha) is not None


def crash(fleet: Fleet) -> None:
    """SIGKILL alpha, and wait until it is back."""
    before = (answers(fleet.alpha) or {})["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: (told := answers(fleet.alpha)) and told["pid"] != before)
