"""One datasite by hand, from the command line and from Python."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from datasite_worker.__main__ import parser
from tests.real.harness import Central, alone, answers, eventually

REPOSITORY = Path(__file__).parents[2]
SCRIPT = REPOSITORY / "scripts" / "FactoryDatasite.py"
COMMAND = Path(sys.executable).parent / "factory-datasite"
DEFAULTS = "pdm_factory_datasite localhost 8080 http://localhost:5000 False False False"
STEPS = (
    "device: cpu",
    "launching PySyft",
    "admin created: admin@pdm-factory.com",
    "launched on port",
    "registering with",
    "registered with",
    "heartbeat: operational",
)


def test_the_flags_and_their_defaults() -> None:
    """The seven of the specification, no other."""
    names = ("factory_name", "hostname", "port", "dashboard_url", "dev_mode", "reset", "verbose")
    asked = vars(parser().parse_args([]))
    assert names == tuple(asked)
    assert DEFAULTS == " ".join(str(value) for value in asked.values())


@pytest.mark.parametrize(
    ("program", "number"),
    [
        pytest.param((sys.executable, "-m", "datasite_worker"), signal.SIGTERM, marks=pytest.mark.slow, id="module"),
        pytest.param((sys.executable, str(SCRIPT)), signal.SIGINT, id="script"),
        pytest.param((str(COMMAND),), signal.SIGHUP, marks=pytest.mark.slow, id="command"),
    ],
)
def test_each_step_has_its_line_and_a_signal_ends_it(
    tmp_path: Path, program: tuple[str, ...], number: signal.Signals
) -> None:
    """All three doors: the log tells each step once, the status answers, the end is clean and the centre knows."""
    central = Central()
    central.open()
    try:
        with alone(tmp_path) as solo:
            solo.start("--dashboard_url", central.url, program=program)
            told = answers(solo.port) or {}
            assert ("solo", solo.port, "running") == tuple(
                told[key] for key in ("factory_name", "factory_port", "status")
            )
            eventually(lambda: central.bodies("/heartbeat", "solo"))
            assert 0 == solo.end(number)
            log = solo.log()
            assert [1] * len(STEPS) == [log.count(step) for step in STEPS]
            assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - INFO - device: cpu$", log, re.MULTILINE)
            assert "stopping" == central.bodies("/heartbeat", "solo")[-1]["status"]
            assert _password(solo.state) not in log
    finally:
        central.close()


def _password(state: Path) -> str:
    import json

    return str(json.loads((state / "admin.json").read_text())["password"])


@pytest.mark.slow
def test_reset_says_what_it_removes_and_is_asked_for_each_time(tmp_path: Path) -> None:
    """Without it the identity stays; with it the log names every file and folder that went."""
    with alone(tmp_path) as solo:
        solo.start("--dashboard_url", "")
        first = (solo.state / "identity.json").read_text()
        assert 0 == solo.end(signal.SIGTERM)
        solo.start("--dashboard_url", "")
        assert first == (solo.state / "identity.json").read_text()
        assert 0 == solo.end(signal.SIGTERM)
        assert "reset:" not in solo.log()
        solo.start("--dashboard_url", "", "--reset", "True")
        assert first != (solo.state / "identity.json").read_text()
        for name in ("admin.json", "identity.json", "syft"):
            assert f"reset: removing {solo.state / name}" in solo.log()
        assert 0 == solo.end(signal.SIGTERM)


@pytest.mark.slow
def test_reset_spares_a_datasite_that_runs(tmp_path: Path) -> None:
    """A second start on the same port or the same state is refused before anything is removed."""
    with alone(tmp_path) as solo, alone(tmp_path) as second:
        solo.start("--dashboard_url", "")
        kept = (solo.state / "identity.json").read_text()
        second.start("--dashboard_url", "", "--reset", "True")
        assert 78 == second.ended()
        assert (
            f"{solo.state} is in use by another process (pid {solo.process.pid if solo.process else 0})" in solo.log()
        )
        second.port = solo.port
        second.start("--dashboard_url", "", "--reset", "True")
        assert 78 == eventually(second.ended)
        assert f"port {solo.port} is taken by" in solo.log()
        assert kept == (solo.state / "identity.json").read_text()
        assert 0 == solo.end(signal.SIGTERM)


def test_it_listens_where_it_was_told_and_its_queue_on_loopback(tmp_path: Path) -> None:
    """No socket of a datasite on localhost is open to the network."""
    with alone(tmp_path) as solo:
        solo.start("--dashboard_url", "")
        assert solo.process is not None
        connections = psutil.Process(solo.process.pid).net_connections("inet")
        listening = {one.laddr.ip for one in connections if one.status == psutil.CONN_LISTEN}
        assert {"127.0.0.1"} == listening
        assert 0 == solo.end(signal.SIGTERM)


FROM_PYTHON = """
import sys
from datasite_worker import FactoryDatasite

datasite = FactoryDatasite("python", port=int(sys.argv[1]), dashboard_url="http://127.0.0.1:9", verbose=True)
assert datasite.detect_device() == "cpu"
handle = datasite.launch_datasite()
assert datasite.register_with_dashboard() is False
assert datasite.send_heartbeat() is False
print(sorted(datasite.status_endpoint()))
login = datasite.create_admin_user("second@example.com", "Second", "a-long-password-1")
client = handle.login(email="second@example.com", password="a-long-password-1")
assert client.api.services.api.api_endpoints() is not None
handle.shutdown()
print("done")
"""


def test_the_class_is_usable_from_python(tmp_path: Path) -> None:
    """Its methods work one by one; the handle is PySyft's, logs in and shuts down."""
    with alone(tmp_path) as solo:
        run = subprocess.run(
            [sys.executable, "-c", FROM_PYTHON, str(solo.port)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert "done" == run.stdout.strip().splitlines()[-1], run.stdout + run.stderr
        assert (
            "['active_experiments', 'current_load', 'device', 'factory_hostname', 'factory_name', 'factory_port', "
            "'last_training_completion', 'status']"
        ) in run.stdout
        assert answers(solo.port) is None
