"""``ControlClient``: the supervisor's control socket, for commands and displays. It prints nothing.

Every call has a time limit. Every failure is a ``ControlError`` whose text an operator can read.
"""

from __future__ import annotations

import os
import socket
import time
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

from fleet_common.layout import StateFolder
from fleet_common.unix_path import address_in
from fleet_common.untrusted import Unfit, decoded
from supervisor.effects.places import listens
from supervisor.record import OperatorRequest
from supervisor.snapshot import FleetSnapshot, from_dict

CONNECT_TIMEOUT = 2.0
ANSWER_TIMEOUT = 5.0
"""Seconds within which a running supervisor answers; a long poll may take its own timeout in addition."""


_RELOAD_TIMEOUT = 30.0
_DOOR_PATIENCE, _DOOR_LOOK = 8.0, 0.05
_LARGEST = 64 * 1024 * 1024


class ControlError(Exception):
    """The supervisor did not carry out a request."""


class NotRunning(ControlError):
    """No supervisor listens for this state folder."""


class NoAnswer(ControlError):
    """A supervisor is there, but it does not answer in time, or this version does not understand the answer."""


class Refused(ControlError):
    """The supervisor refuses; the text says why."""


class Broken(ControlError):
    """The fleet.yaml has errors; the text says where."""


class UnknownWorker(ControlError):
    def __init__(self, name: str, near: tuple[str, ...]) -> None:
        super().__init__(f"no datasite named {name}")
        self.name = name
        self.near = near


class ControlClient:
    """Talks to the supervisor of ``state_dir``. A context manager, for one thread at a time.

    Raises NotRunning when made for a folder that is not there; every method raises ControlError.
    """

    def __init__(self, state_dir: Path, *, answer_timeout: float = ANSWER_TIMEOUT) -> None:
        self._state_dir = state_dir
        self._socket = StateFolder(state_dir).control_socket
        self._patience = answer_timeout
        _wait_for_door(state_dir)
        self._folder = _open_folder(state_dir)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def status(self, after: int | None = None, timeout: float | None = None) -> FleetSnapshot:
        """The snapshot of now; with ``after``, as soon as its revision is greater, or after ``timeout`` seconds."""
        poll = {} if after is None else {"after": after, "timeout": 10.0 if timeout is None else timeout}
        answer = self._call("GET", "/v1/status", params=poll, extra=poll.get("timeout", 0.0))
        try:
            return from_dict(answer)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise NoAnswer("the supervisor sent an unknown answer; it may run another version of fleet") from error

    def ask(self, name: str, request: OperatorRequest) -> int:
        """Send the request; returns the generation of the worker before it."""
        answer = self._call("POST", f"/v1/workers/{quote(name, safe='')}/{request.value}", name=name)
        return int(answer.get("generation", 0))

    def reload(self, *, dry_run: bool) -> dict[str, Any]:
        """The plan of a reload, as ``policy.reconcile.Plan``. Raises Broken when the new file has errors."""
        patience = _RELOAD_TIMEOUT - self._patience  # a secret that the file names may lie on a slow disk
        plan = self._call("POST", "/v1/reload", params={"dry_run": int(dry_run)}, extra=max(0.0, patience))
        return dict(plan)

    def down(self) -> None:
        self._call("POST", "/v1/down")

    def _call(
        self, method: str, path: str, *, params: dict[str, Any] | None = None, extra: float = 0.0, name: str = ""
    ) -> Any:
        connection = _Connection(address_in(self._folder, self._socket.name), self._patience, self._patience + extra)
        try:
            connection.request(method, f"{path}?{urlencode(params)}" if params else path)
            response = connection.getresponse()
            return _body(response.status, response.read(_LARGEST + 1), name)
        except TimeoutError as error:
            raise NoAnswer(
                f"the supervisor does not answer within {self._patience + extra:g} s (state folder {self._state_dir})"
            ) from error
        except (OSError, HTTPException) as error:
            raise self._explained(error) from error
        finally:
            connection.close()

    def _explained(self, error: BaseException) -> ControlError:
        if isinstance(error, PermissionError):
            return Refused(f"{self._socket} belongs to another user; run this command as that user")
        return NotRunning(f"no supervisor is running (state folder {self._state_dir})")


def _wait_for_door(state_dir: Path) -> None:
    """Where somebody has removed the control socket of a running supervisor, it makes it again within seconds."""
    door, give_up = StateFolder(state_dir).control_socket, time.monotonic() + _DOOR_PATIENCE
    while _is_missing(door) and listens(state_dir) and time.monotonic() < give_up:
        time.sleep(_DOOR_LOOK)


def _is_missing(path: Path) -> bool:
    """Whether there is no such file; one in another user's folder may be there."""
    try:
        path.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _open_folder(state_dir: Path) -> int:
    try:
        return os.open(state_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError as error:
        raise Refused(f"{state_dir} belongs to another user; run this command as that user") from error
    except OSError as error:
        raise NotRunning(f"no supervisor is running (no state folder {state_dir})") from error


def _body(code: int, raw: bytes, name: str) -> Any:
    body = decoded(raw, Any, _LARGEST)
    if isinstance(body, Unfit):
        raise NoAnswer(f"the process on the control socket is not a supervisor (HTTP {code})")
    if HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES:
        return body
    answer = body if isinstance(body, dict) else {}
    if code == HTTPStatus.NOT_FOUND and "near" in answer:
        raise UnknownWorker(name, tuple(answer["near"]))
    if code == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise Broken(str(answer.get("error", "")))
    raise Refused(str(answer.get("error", f"the supervisor answered HTTP {code}")))


class _Connection(HTTPConnection):
    """HTTP over the unix socket at ``path``, for one request. It uses the standard library: loading a larger client
    takes longer than `fleet status` may take as a whole."""

    def __init__(self, path: str, connect_timeout: float, timeout: float) -> None:
        super().__init__("fleet", timeout=timeout)
        self._path = path
        self._connect_timeout = min(CONNECT_TIMEOUT, connect_timeout)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(self._connect_timeout)
        self.sock.connect(self._path)
        self.sock.settimeout(self.timeout)
