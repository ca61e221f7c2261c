"""Hooks are told of events, by real commands and a real local webhook, and hold up nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleet_common.signals import is_zombie, start_ticks
from supervisor.effects import hooks as module
from supervisor.effects.hooks import Hooks
from supervisor.effects.processes import reap_strays
from supervisor.history import Event, EventKind
from supervisor.spec import Hook

pytestmark = pytest.mark.process

CEILING = 20.0


def event(name: str = "alpha", kind: EventKind = EventKind.EXITED) -> dict[str, Any]:
    return Event(name, kind, "ended: SIGKILL", pid=77, exit_code=-9).to_dict("2026-03-01T12:00:00+00:00")


def python(program: str, *arguments: object) -> tuple[str, ...]:
    return (sys.executable, "-S", "-c", program, *map(str, arguments))


@contextmanager
def telling(*hooks: Hook) -> Iterator[Hooks]:
    made = Hooks(hooks)
    try:
        yield made
    finally:
        made.close()


def until(holds: Callable[[], object]) -> None:
    """Wait for a condition, with a ceiling."""
    give_up = time.monotonic() + CEILING
    while not holds():
        assert time.monotonic() < give_up
        threading.Event().wait(0.01)


KEEP = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + '\\n')"


def test_a_command_gets_the_event_on_standard_input(tmp_path: Path) -> None:
    """As JSON, whole, and nothing of it on the command line."""
    with telling(Hook(python(KEEP, tmp_path / "told"))) as hooks:
        hooks.tell(event("alpha"))
        hooks.tell(event("beta"))
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [event("alpha"), event("beta")] == told


def test_a_command_has_an_environment_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fleet.yaml gives it, beside what every process of the fleet sees."""
    monkeypatch.setenv("LANG", "C.UTF-8")
    program = "import os, sys; open(sys.argv[1], 'w').write(os.environ['TOKEN'] + os.environ['LANG'])"
    with telling(Hook(python(program, tmp_path / "told"), environment=(("TOKEN", "own "),))) as hooks:
        hooks.tell(event())
    assert "own C.UTF-8" == (tmp_path / "told").read_text()


def test_a_hook_is_told_only_of_what_it_asked_for(tmp_path: Path) -> None:
    """`events:` names the kinds; without it, all of them."""
    some = Hook(python(KEEP, tmp_path / "some"), events=("quarantined",))
    every = Hook(python(KEEP, tmp_path / "every"))
    with telling(some, every) as hooks:
        hooks.tell(event(kind=EventKind.READY))
        hooks.tell(event(kind=EventKind.QUARANTINED))
    lines = {name: (tmp_path / name).read_text().splitlines() for name in ("some", "every")}
    assert ["quarantined"] == [json.loads(line)["event"] for line in lines["some"]]
    assert ["ready", "quarantined"] == [json.loads(line)["event"] for line in lines["every"]]


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (python("import sys; print('no pager at hand'); sys.exit(3)"), "exit code 3: no pager at hand"),
        (python("import os; os.abort()"), "exit code -6"),
        (("/nowhere/at/all",), "cannot be run: No such file or directory"),
        ((__file__,), "cannot be run: Permission denied"),
    ],
)
def test_a_command_that_fails_is_logged_and_no_more(
    command: tuple[str, ...], complaint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its last words; the next hook is told all the same."""
    with telling(Hook(command), Hook(python(KEEP, tmp_path / "told"))) as hooks:
        hooks.tell(event())
    assert [f"hook {command[0]} failed for event exited of alpha: {complaint}"] == caplog.messages
    assert event() == json.loads((tmp_path / "told").read_text())


def test_a_command_that_takes_too_long_ends_with_all_it_started(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its time limit reaches its children; nothing of it is left running."""
    forking = "import os,sys,time; os.fork(); open(sys.argv[1],'a').write(f'{os.getpid()}\\n'); time.sleep(600)"
    with telling(Hook(python(forking, tmp_path / "pids"), timeout=1.5)) as hooks:
        hooks.tell(event())
        until(lambda: (tmp_path / "pids").is_file() and 2 == (tmp_path / "pids").read_text().count("\n"))
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    until(lambda: all(start_ticks(pid) is None or is_zombie(pid) for pid in pids))
    assert [f"hook {sys.executable} failed for event exited of alpha: took longer than 1.5 s"] == caplog.messages


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    open(sys.argv[1], 'w').write(str(os.getpid()))
    time.sleep(600)
"""


def test_a_command_that_leaves_a_daemon_behind_holds_up_no_later_event(tmp_path: Path) -> None:
    """The daemon has the command's output open and left its session; the next event is told after the time limit."""
    with telling(Hook(python(DAEMON, tmp_path / "pid"), timeout=1.0), Hook(python(KEEP, tmp_path / "told"))) as hooks:
        hooks.tell(event())
        until((tmp_path / "told").is_file)
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_nobody_else_takes_the_exit_status_of_a_command(caplog: pytest.LogCaptureFixture) -> None:
    """The supervisor reaps orphans at every SIGCHLD; what a hook waits for is left to it, so its failure is told."""
    late = "import os, time; os.close(1); os.close(2); time.sleep(0.2); os._exit(3)"  # its end comes after its output's
    with telling(Hook(python(late))) as hooks:
        for _ in range(5):
            hooks.tell(event())
        give_up = time.monotonic() + CEILING
        while len(caplog.messages) < 5 and time.monotonic() < give_up:
            kept = hooks.children()
            if kept is not None:
                reap_strays(kept)
    assert 5 * [f"hook {sys.executable} failed for event exited of alpha: exit code 3"] == caplog.messages


def test_slow_hooks_never_hold_up_who_tells(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tell` returns at once, the queue is bounded, the oldest are dropped, and that is logged once."""
    monkeypatch.setattr(module, "_MOST_WAITING", 10)
    gate, waiting = tmp_path / "gate", tmp_path / "waiting"
    os.mkfifo(gate)
    slow = "import sys; open(sys.argv[3], 'w').close(); open(sys.argv[1]).read(); " + KEEP.replace("[1]", "[2]")
    with telling(Hook(python(slow, gate, tmp_path / "told", waiting), timeout=60.0)) as hooks:
        hooks.tell(event("first"))
        until(waiting.exists)
        began = time.monotonic()
        for at in range(2000):
            hooks.tell(event(f"line_{at}"))
        took = time.monotonic() - began
        hooks.use((Hook(python(KEEP, tmp_path / "told")),))
        gate.write_text("go on")
    told = [json.loads(line)["name"] for line in (tmp_path / "told").read_text().splitlines()]
    assert ["first", *(f"line_{at}" for at in range(1990, 2000))] == told[:11]
    assert took < 5
    assert ["hooks are too slow: dropping the oldest events (at most 10 may wait)"] == caplog.messages


def test_without_hooks_nothing_waits() -> None:
    """A fleet without hooks keeps no events for them."""
    with telling() as hooks:
        hooks.tell(event())
        assert hooks._waiting.empty()


class Chat(BaseHTTPRequestHandler):
    """A webhook that keeps what it is told."""

    told: list[tuple[str, str | None, Any]]
    answer = 204

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.told.append((self.path, self.headers["content-type"], json.loads(body)))
        self.send_response(self.answer)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def chat(answer: int = 204) -> Iterator[tuple[str, list[tuple[str, str | None, Any]]]]:
    told: list[tuple[str, str | None, Any]] = []
    handler = type("Handler", (Chat,), {"told": told, "answer": answer})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/T1/s3cret?key=k", told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_webhook_gets_the_event_as_the_body_of_a_post() -> None:
    """JSON, under the URL as it was written."""
    with chat() as (url, told), telling(Hook(webhook=url)) as hooks:
        hooks.tell(event())
        until(lambda: told)
    assert [("/T1/s3cret?key=k", "application/json", event())] == told


def test_a_webhook_that_fails_is_logged_without_its_url(caplog: pytest.LogCaptureFixture) -> None:
    """The URL of a chat service is a secret; refused, and answered with an error, are told apart."""
    with chat(500) as (url, _), telling(Hook(webhook=url)) as hooks:
        hooks.tell(event())
    with telling(Hook(webhook=url, timeout=1.0)) as hooks:
        hooks.tell(event())
    prefix = "hook webhook failed for event exited of alpha:"
    ours = [record.getMessage() for record in caplog.records if record.name == "fleet"]
    assert f"{prefix} answered HTTP 500" == ours[0]
    assert re.fullmatch(f"{prefix} Connect[A-Za-z]*Error", ours[1])
    assert "s3cret" not in "\n".join(ours)


def test_a_webhook_that_moved_was_not_told(caplog: pytest.LogCaptureFixture) -> None:
    """A redirect is not followed, with the event in its body, to wherever it points; and it is no success."""
    with chat(302) as (url, told), telling(Hook(webhook=url)) as hooks:
        hooks.tell(event())
    ours = [record.getMessage() for record in caplog.records if record.name == "fleet"]
    assert (1, ["hook webhook failed for event exited of alpha: answered HTTP 302"]) == (len(told), ours)
