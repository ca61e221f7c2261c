"""Sends events to commands and webhooks, in its own thread and with time limits: a hook delays nothing.

A command gets the event as JSON on its standard input and nothing on its command line; a webhook gets it as the body
of a POST. Events wait in a bounded queue: when hooks are too slow, the oldest are dropped and that is logged.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet_common import signals
from supervisor.spec import Hook

log = logging.getLogger("fleet")

_MOST_WAITING = 1000
_CLOSING = 5.0
_LAST_WORDS = 300
_ENDING = 1.0
"""Seconds for a killed command to close its output; a daemon that it started may hold it for ever."""


class Hooks:
    """``use`` replaces the hooks at a reload; ``tell`` returns at once. ``folder``: where commands run, while it is
    there."""

    def __init__(self, hooks: tuple[Hook, ...], folder: Path = Path()) -> None:
        self._hooks = hooks
        self._folder = folder
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
        self._starting = threading.Lock()
        self._child: int | None = None
        self._thread = threading.Thread(target=self._run, name="hooks", daemon=True)
        self._thread.start()

    def use(self, hooks: tuple[Hook, ...]) -> None:
        self._hooks = hooks

    def tell(self, event: dict[str, Any]) -> None:
        if not self._hooks:
            return
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._drop_oldest(event)

    def _drop_oldest(self, event: dict[str, Any]) -> None:
        self._dropped += 1
        if self._dropped == 1:
            log.warning("hooks are too slow: dropping the oldest events (at most %d may wait)", _MOST_WAITING)
        try:
            self._waiting.get_nowait()
            self._waiting.put_nowait(event)
        except (queue.Empty, queue.Full):
            return

    def children(self) -> set[int] | None:
        """The pids whose exit status this collects; None while one is being started and has no pid yet. Never waits,
        not even for a command on a dead disk.

        Never waits, not even for a command on a dead disk.
        """
        if not self._starting.acquire(blocking=False):
            return None
        try:
            return set() if self._child is None else {self._child}
        finally:
            self._starting.release()

    def close(self) -> None:
        """Send the waiting events, for a few seconds at most."""
        try:
            self._waiting.put(None, timeout=_CLOSING)
        except queue.Full:
            return
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            for hook in self._hooks:
                if not hook.events or event["event"] in hook.events:
                    self._tell_one(hook, event)

    def _tell_one(self, hook: Hook, event: Mapping[str, Any]) -> None:
        body = json.dumps(event).encode()
        failure = _post(hook, body) if hook.webhook else self._execute(hook, body)
        if failure:
            what = "webhook" if hook.webhook else hook.command[0]
            log.warning("hook %s failed for event %s of %s: %s", what, event["event"], event["name"], failure)

    def _execute(self, hook: Hook, body: bytes) -> str:
        """Why it failed; empty when it did not."""
        try:
            with self._starting:
                child = _start(hook, self._folder if self._folder.is_dir() else Path("/"))
                self._child = child.pid
        except OSError as error:
            return f"cannot be run: {error.strerror}"
        try:
            return _outcome(child, hook, body)
        finally:
            self._child = None


def _post(hook: Hook, body: bytes) -> str:
    """Why it failed; empty when it did not. The URL is a secret and is not shown."""
    import requests  # most fleets have no webhook and do not need it

    try:
        headers = {"content-type": "application/json"}
        answer = requests.post(hook.webhook, data=body, headers=headers, timeout=hook.timeout, allow_redirects=False)
    except requests.RequestException as error:
        return type(error).__name__
    delivered = 200 <= answer.status_code < 300  # a redirect is not followed, so nothing was delivered
    return "" if delivered else f"answered HTTP {answer.status_code}"


def _start(hook: Hook, folder: Path) -> subprocess.Popen[bytes]:
    """In its own session, so that its time limit reaches all that it started. It sees the few variables that all
    processes of the fleet see, and its own: while it runs, every process of this user can read them."""
    pipe = subprocess.PIPE
    environ = {**os.environ, **dict(hook.environment)}
    return subprocess.Popen(
        hook.command, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True, env=environ, cwd=folder
    )


def _outcome(child: subprocess.Popen[bytes], hook: Hook, body: bytes) -> str:
    try:
        output, _ = child.communicate(body, hook.timeout)
    except subprocess.TimeoutExpired:
        _end(child)
        return f"took longer than {hook.timeout:g} s"
    words = output.decode("utf-8", "replace").strip()[-_LAST_WORDS:]
    return "" if child.returncode == 0 else f"exit code {child.returncode}{': ' + words if words else ''}"


def _end(child: subprocess.Popen[bytes]) -> None:
    signals.to_childs_group(child.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.communicate(timeout=_ENDING)
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    child.wait()
