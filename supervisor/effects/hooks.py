"""Tells commands and webhooks of events, in a thread of its own and with time limits: a hook holds up nothing.

A command gets the event as JSON on its standard input and nothing on its command line; a webhook gets it as the body
of a POST. Events wait in a bounded queue: when hooks are too slow, the oldest are dropped and that is logged.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import httpx

from supervisor.spec import Hook

log = logging.getLogger("fleet")

_MOST_WAITING = 1000
_CLOSING = 5.0
_LAST_WORDS = 300


class Hooks:
    """``use`` replaces the hooks at a reload; ``tell`` returns at once."""

    def __init__(self, hooks: tuple[Hook, ...]) -> None:
        self._hooks = hooks
        self._waiting: queue.Queue[dict[str, Any] | None] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
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
            log.warning("hooks are too slow; the oldest events are not told (limit %d waiting)", _MOST_WAITING)
        try:
            self._waiting.get_nowait()
            self._waiting.put_nowait(event)
        except (queue.Empty, queue.Full):
            return

    def close(self) -> None:
        """Let what is waiting be told, for a few seconds at most."""
        try:
            self._waiting.put(None, timeout=_CLOSING)
        except queue.Full:
            return
        self._thread.join(_CLOSING)

    def _run(self) -> None:
        while (event := self._waiting.get()) is not None:
            for hook in self._hooks:
                if not hook.events or event["event"] in hook.events:
                    _tell_one(hook, event)


def _tell_one(hook: Hook, event: Mapping[str, Any]) -> None:
    body = json.dumps(event).encode()
    failure = _post(hook, body) if hook.webhook else _execute(hook, body)
    if failure:
        what = "webhook" if hook.webhook else hook.command[0]
        log.warning("hook %s failed for event %s of %s: %s", what, event["event"], event["name"], failure)


def _post(hook: Hook, body: bytes) -> str:
    """Why it failed; empty when it did not. The URL is a secret and is not told."""
    try:
        headers = {"content-type": "application/json"}
        answer = httpx.post(hook.webhook, content=body, headers=headers, timeout=hook.timeout)
    except httpx.HTTPError as error:
        return type(error).__name__
    return "" if answer.is_success else f"answered HTTP {answer.status_code}"


def _execute(hook: Hook, body: bytes) -> str:
    """In a session of its own, so that its time limit reaches whatever it started."""
    try:
        child = subprocess.Popen(
            hook.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return f"cannot be run: {error.strerror}"
    try:
        said, _ = child.communicate(body, hook.timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return f"took longer than {hook.timeout:g} s"
    words = said.decode("utf-8", "replace").strip()[-_LAST_WORDS:]
    return "" if child.returncode == 0 else f"exit code {child.returncode}{': ' + words if words else ''}"
