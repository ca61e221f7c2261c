"""`fleet up` around the daemon: what it refuses, what it asks, what it shows; and the process as a whole."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from supervisor.faces import up
from supervisor.faces.cli import app
from supervisor.spec import FleetConfig
from tests.unit.fake_supervisor import listening, worker

ROOT = Path(__file__).resolve().parents[2]
FLEET_YAML = """\
version: 1
name: detroit
dashboard: embedded
datasites:
  - {name: line_a, port: 8080, reset: true}
  - {name: line_b, port: 8081}
"""
CEILING = 20.0


class AlreadyRunning(Exception):
    """As daemon's."""

    def __init__(self, pid: int | None) -> None:
        super().__init__()
        self.pid = pid


class Daemon(ModuleType):
    """Stands for supervisor.daemon: remembers how it was asked to serve."""

    AlreadyRunning = AlreadyRunning

    def __init__(self) -> None:
        super().__init__("supervisor.daemon")
        self.served: list[tuple[bool, tuple[str, ...]]] = []
        self.serving: Callable[[FleetConfig], None] = lambda config: None
        self.leftovers: tuple[str, ...] = ()

    def serve(self, config: FleetConfig, *, echo: bool, reset: tuple[str, ...] = ()) -> None:
        self.served.append((echo, reset))
        self.serving(config)

    def reset_plan(self, config: FleetConfig) -> tuple[Any, ...]:
        item = type("Item", (), {"name": "line_a", "path": config.state_dir / "line_a", "size_bytes": 2048})()
        return (item,) if (config.state_dir / "line_a").is_dir() else ()

    def stop_orphans(self, config: FleetConfig) -> tuple[str, ...]:
        return self.leftovers


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Daemon:
    fake = Daemon()
    monkeypatch.setitem(sys.modules, "supervisor.daemon", fake)
    return fake


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLEET_FILE", raising=False)
    (tmp_path / "fleet.yaml").write_text(FLEET_YAML)
    return tmp_path


def fleet(*arguments: object, **more: Any) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False, **more)


# --- before anything starts ---


def test_up_serves_with_plain_lines_off_a_terminal(plant: Path, daemon: Daemon) -> None:
    """Off a terminal the log lines are echoed; --quiet leaves them to the log."""
    assert 0 == fleet("up").exit_code
    assert 0 == fleet("up", "--quiet").exit_code
    assert [(True, ()), (False, ())] == daemon.served


def test_up_with_errors_starts_nothing(plant: Path, daemon: Daemon) -> None:
    """Every problem is named, and the exit code is 2."""
    (plant / "fleet.yaml").write_text(FLEET_YAML.replace("8081", "8080"))
    result = fleet("up")
    assert (2, []) == (result.exit_code, daemon.served)
    assert "fleet.yaml:6:" in result.output


def test_a_second_up_is_refused_with_the_pid_of_the_first(plant: Path, daemon: Daemon) -> None:
    """By the control socket when it answers, by the lock when it does not."""
    with listening(plant / ".fleet", worker(), supervisor_pid=4242):
        result = fleet("up")
    assert (5, []) == (result.exit_code, daemon.served)
    assert "already running for this fleet (pid 4242" in result.output

    def locked(config: FleetConfig) -> None:
        raise AlreadyRunning(4343)

    daemon.serving = locked
    result = fleet("up")
    assert 5 == result.exit_code
    assert "pid 4343" in result.output


def test_reset_needs_a_yes_where_nobody_can_be_asked(plant: Path, daemon: Daemon) -> None:
    """What would be removed is named with its size; without --yes nothing starts and the exit code is 2."""
    (plant / ".fleet" / "line_a").mkdir(parents=True)
    result = fleet("up")
    assert (2, []) == (result.exit_code, daemon.served)
    assert f"reset: line_a loses all its state: {plant / '.fleet' / 'line_a'} (2.0 KiB)" in result.output
    assert "--yes" in result.output
    assert 0 == fleet("up", "--yes").exit_code
    assert [(True, ("line_a",))] == daemon.served


def test_reset_of_nothing_asks_nothing(plant: Path, daemon: Daemon) -> None:
    """A first start has nothing to lose."""
    assert 0 == fleet("up").exit_code
    assert [(True, ())] == daemon.served


def test_a_folder_that_cannot_be_written_is_named(plant: Path, daemon: Daemon) -> None:
    """The operator reads which folder, not a traceback."""

    def unwritable(config: FleetConfig) -> None:
        raise PermissionError(13, "Permission denied", str(config.state_dir))

    daemon.serving = unwritable
    result = fleet("up")
    assert 2 == result.exit_code
    assert str(plant / ".fleet") in result.output


def test_down_stops_what_a_killed_supervisor_left(plant: Path, daemon: Daemon) -> None:
    """With leftovers `fleet down` has done something; without, there was no supervisor."""
    (plant / ".fleet").mkdir()
    daemon.leftovers = ("line_a",)
    result = fleet("down")
    assert (0, "line_a stopped (its supervisor had ended)\n") == (result.exit_code, result.output)
    daemon.leftovers = ()
    assert 3 == fleet("down").exit_code


# --- in the background ---

_STAND_IN = """
import sys, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.fake_supervisor import at_rest, listening, worker
with listening(Path({state!r}), {workers}) as fake:
    fake.went_down.wait(60)
"""


@pytest.fixture
def detached(plant: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program in the place of the supervisor that --detach starts."""

    def put(program: str) -> None:
        monkeypatch.setattr(up, "_command", lambda path: [sys.executable, "-c", program])

    return put


def stand_in(plant: Path, workers: str) -> str:
    return _STAND_IN.format(root=str(ROOT), state=str(plant / ".fleet"), workers=workers)


def test_the_command_that_is_run_in_the_background() -> None:
    """The same `fleet up`, told that all was agreed to."""
    expected = [sys.executable, "-P", "-m", "supervisor", "up", "/p/fleet.yaml", "--yes", "--quiet"]
    assert expected == up._command(Path("/p/fleet.yaml"))


@pytest.mark.process
def test_detach_returns_when_all_are_ready(plant: Path, daemon: Daemon, detached: Callable[[str], None]) -> None:
    """One line a datasite, and the fleet is left running in a session of its own."""
    detached(stand_in(plant, "worker('line_a'), worker('line_b')"))
    result = fleet("up", "--detach")
    assert 0 == result.exit_code
    assert "line_b ready (pid 4711) http://localhost:8080\n" in result.output
    assert "fleet detroit is up in " in result.output
    pid = int(re.findall(r"supervisor pid (\d+)", result.output)[0])
    assert os.getsid(pid) == pid
    assert 0 == fleet("down").exit_code


@pytest.mark.process
def test_detach_says_what_is_not_ready_and_why(plant: Path, daemon: Daemon, detached: Callable[[str], None]) -> None:
    """1, the reason and the next step of each; the fleet stays up, and nobody waits for the quarantined."""
    bad = "at_rest('line_b', state='quarantined', wanted='up', reason='port 8081 is taken')"
    detached(stand_in(plant, f"worker('line_a'), {bad}"))
    result = fleet("up", "--detach")
    assert 1 == result.exit_code
    assert "line_a ready (pid 4711)" in result.output
    assert "1 of 2 not ready after" in result.output
    assert "line_b quarantined: port 8081 is taken; next step: fleet logs line_b" in result.output
    assert 0 == fleet("down").exit_code


@pytest.mark.process
def test_a_line_that_was_stopped_before_is_no_failure(
    plant: Path, daemon: Daemon, detached: Callable[[str], None]
) -> None:
    """The operator stopped it, the supervisor crashed, the next one leaves it down: that is said, with the way back."""
    stopped = "at_rest('line_b', reason='stopped by the operator')"
    detached(stand_in(plant, f"worker('line_a'), {stopped}"))
    result = fleet("up", "--detach")
    assert 0 == result.exit_code
    assert "line_b down: stopped by the operator; fleet start line_b\n" in result.output
    assert "fleet detroit is up in " in result.output
    assert 0 == fleet("down").exit_code


@pytest.mark.process
def test_detach_gives_up_waiting(plant: Path, daemon: Daemon, detached: Callable[[str], None]) -> None:
    """After --timeout it says who is still starting."""
    detached(stand_in(plant, "worker('line_a', state='starting')"))
    result = fleet("up", "--detach", "--timeout", "2")
    assert 1 == result.exit_code
    assert "line_a starting for 1m 20s: " in result.output
    assert 0 == fleet("down").exit_code


@pytest.mark.process
def test_detach_shows_the_last_words_of_a_supervisor_that_ended(
    plant: Path, daemon: Daemon, detached: Callable[[str], None]
) -> None:
    """Its output of this start, not of an earlier one, and its exit code."""
    (plant / "logs").mkdir()
    (plant / "logs" / "fleet.out").write_text("words of yesterday\n")
    detached("import sys; print('no such folder'); sys.exit(2)")
    result = fleet("up", "--detach")
    assert 2 == result.exit_code
    assert "exit code 2" in result.output
    assert "  no such folder" in result.output
    assert "yesterday" not in result.output


# --- the process as a whole ---


def process(*arguments: str, **more: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm-256color"}
    for name in ("FLEET_FILE", "NO_COLOR", "FORCE_COLOR", "PYTHONUNBUFFERED"):
        environment.pop(name, None)
    environment |= more.pop("environment", {})
    return subprocess.Popen([sys.executable, "-m", "supervisor", *arguments], env=environment, **more)


Cue = tuple[str, Callable[[subprocess.Popen[bytes]], object]]
"""A text to wait for, and what is done once it was seen."""


def interrupt(child: subprocess.Popen[bytes]) -> None:
    child.send_signal(signal.SIGINT)


def on_a_terminal(*arguments: str, cues: tuple[Cue, ...] = (), **more: Any) -> tuple[str, int]:
    """What the command writes to a terminal, and its exit code; the cues are followed one after the other."""
    ours, theirs = pty.openpty()
    child = process(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, **more)
    os.close(theirs)
    try:
        return _read_all(ours, child, cues), child.wait(CEILING)
    finally:
        os.close(ours)
        child.kill()
        child.wait()


def _read_all(ours: int, child: subprocess.Popen[bytes], cues: tuple[Cue, ...]) -> str:
    text, left, give_up = "", list(cues), time.monotonic() + CEILING
    while time.monotonic() < give_up and select.select([ours], [], [], CEILING)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        text += piece.decode("utf-8", "replace")
        if left and left[0][0] in text:
            left.pop(0)[1](child)
    return text


@pytest.mark.process
def test_status_on_a_terminal_is_coloured(plant: Path) -> None:
    """Colours and a header rule on a terminal; neither colour with NO_COLOR nor with --no-color."""
    with listening(plant / ".fleet", worker("line_a")):
        coloured, code = on_a_terminal("status")
        without, _ = on_a_terminal("status", environment={"NO_COLOR": "1"})
        asked, _ = on_a_terminal("--no-color", "status")
    assert 0 == code
    assert "\x1b[32m● ready" in coloured
    assert "──────" in coloured
    for text in (without, asked):
        assert "● ready" in text
        assert "\x1b[32m" not in text


@pytest.mark.process
def test_status_watch_redraws_until_interrupted(plant: Path) -> None:
    """A change shows by itself; Ctrl-C ends it with 130 and no traceback."""
    with listening(plant / ".fleet", worker("line_a")) as fake:
        slow: Cue = ("● ready", lambda _: fake.change("line_a", state="unready", ready=False, reason="slow"))
        text, code = on_a_terminal("status", "--watch", cues=(slow, ("unready: slow", interrupt)))
    assert 130 == code
    assert "● ready" in text
    assert "Traceback" not in text


@pytest.mark.process
def test_watch_as_json_writes_a_line_for_each_change(plant: Path) -> None:
    """Off a terminal: one document a line."""
    with listening(plant / ".fleet", worker("line_a")) as fake:
        child = process("status", "--watch", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert "ready" == json.loads(child.stdout.readline())["datasites"][0]["state"]
        fake.change("line_a", state="unready")
        assert "unready" == json.loads(child.stdout.readline())["datasites"][0]["state"]
        child.send_signal(signal.SIGINT)
        assert (b"", 130) == (child.communicate(timeout=CEILING)[1], child.returncode)


@pytest.mark.process
def test_a_closed_pipe_is_no_traceback(plant: Path) -> None:
    """`fleet logs … | head` ends quietly."""
    (plant / "logs").mkdir()
    (plant / "logs" / "line_a.log").write_text("x" * 99 + "\n" + "y\n" * 1_000_000)
    child = process("logs", "line_a", "-n", "1000000", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read(10)
    child.stdout.close()
    assert child.stderr is not None
    assert b"" == child.stderr.read()
    child.stderr.close()
    assert child.wait(CEILING) == 1


@pytest.mark.process
def test_logs_follow_until_interrupted(plant: Path) -> None:
    """New lines appear as they are written, control characters disarmed; Ctrl-C ends with 130."""
    (plant / "logs").mkdir()
    log = plant / "logs" / "line_a.log"
    log.write_text("first\n")
    more: Cue = ("first", lambda _: log.write_text("first\nsecond \x1b[2J\n"))
    text, code = on_a_terminal("logs", "line_a", "-f", cues=(more, ("second", interrupt)))
    assert (130, ["first", "second �[2J"]) == (code, text.replace("^C", "").split("\r\n")[:2])


_NO_COMMAND_LOADS = ("syft", "torch", "fastapi", "starlette", "uvicorn", "multiprocessing.forkserver")


@pytest.mark.process
@pytest.mark.parametrize(
    "command", [["status"], ["restart", "line_a", "--no-wait"], ["logs", "fleet", "-n", "0"], ["-h"]]
)
def test_light_commands_load_little(plant: Path, command: list[str]) -> None:
    """`fleet status` must be quick: neither PySyft nor a web framework, and no checker of the whole fleet.yaml."""
    (plant / "logs").mkdir()
    (plant / "logs" / "fleet.log").write_text("")
    program = (
        "import sys, json\nfrom supervisor.__main__ import main\nsys.argv[1:] = json.loads(sys.argv[1])\n"
        "try: main()\nexcept SystemExit as end: assert end.code in (0, None), end.code\n"
        f"print([m for m in {(*_NO_COMMAND_LOADS, 'pydantic')} if m in sys.modules])"
    )
    with listening(plant / ".fleet", worker("line_a")):
        done = subprocess.run(
            [sys.executable, "-c", program, json.dumps(command)],
            check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=CEILING,
        )
    assert ("[]", "") == (done.stdout.splitlines()[-1], done.stderr)


@pytest.mark.process
def test_up_on_a_terminal_shows_the_live_table(plant: Path) -> None:
    """Table, dashboard and the way to stop, drawn by a thread of its own while the daemon serves; Ctrl-C ends it."""
    program = f"""
import sys, types, logging, signal, threading
sys.path.insert(0, {str(ROOT)!r})
from tests.unit.fake_supervisor import listening, worker
stopped = threading.Event()
def serve(config, *, echo, reset=()):
    assert not echo
    signal.signal(signal.SIGINT, lambda *_: stopped.set())
    with listening(config.state_dir, worker("line_a"), dashboard=worker("dashboard", url="http://127.0.0.1:5000")):
        logging.getLogger("fleet").warning("line_a: ended (SIGKILL)")
        stopped.wait(30)
sys.modules["supervisor.daemon"] = module = types.ModuleType("supervisor.daemon")
module.serve, module.AlreadyRunning, module.reset_plan = serve, type("AlreadyRunning", (Exception,), {{}}), lambda c: ()
from supervisor.__main__ import main
sys.argv = ["fleet", "up"]
main()
"""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm-256color"}
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    try:
        text = _read_all(ours, child, (("Ctrl-C stops the fleet", interrupt),))
        assert 0 == child.wait(CEILING)
    finally:
        os.close(ours)
        child.kill()
        child.wait()
    for part in ("● ready", "dashboard: http://127.0.0.1:5000", "line_a: ended (SIGKILL)", "fleet detroit is down"):
        assert part in text
    assert "Traceback" not in text


def test_a_display_is_no_burden(plant: Path) -> None:
    """A live view ends when asked, also while there is no supervisor to show."""
    from rich.console import Console

    from supervisor.faces.live import LiveView

    with (plant / "screen").open("w") as screen:
        view = LiveView(plant / ".fleet", Console(file=screen, force_terminal=True, width=100, height=30))
        view.start()
        view.close(CEILING)
        assert not view.is_alive()
