"""Where a datasite is, and how it is spoken to."""

from __future__ import annotations

import copy
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import requests

from central.client import transport

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("url", "port", "expected"),
    [
        ("http://plant", 8080, "http://plant:8080"),
        ("plant", 8080, "http://plant:8080"),
        ("http://plant:8080", None, "http://plant:8080"),
        ("https://plant:8443", None, "https://plant:8443"),
        ("https://plant", 8443, "https://plant:8443"),
        ("https://plant", None, "https://plant:443"),
        ("http://plant/", None, "http://plant:80"),
    ],
)
def test_an_url_keeps_its_port(url: str, port: int | None, expected: str) -> None:
    """Also when PySyft copies it, as it does for each request."""
    made = transport.parsed(url, port)
    assert expected == made.base_url
    assert f"{expected}/api/v2/login" == str(copy.copy(made).with_path("/api/v2/login"))


@pytest.mark.parametrize(
    ("url", "port", "why"),
    [
        ("ftp://plant", None, "not the URL of a datasite"),
        ("http://", 80, "not the URL of a datasite"),
        ("http://plant:8080", 8081, "contradict each other"),
    ],
)
def test_an_url_that_is_none_is_named(url: str, port: int | None, why: str) -> None:
    """By what is wrong with it."""
    with pytest.raises(ValueError, match=why):
        transport.parsed(url, port)


def test_what_was_asked_for_wins_over_what_pysyft_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PySyft says of each request whom to trust, and never how long to wait."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(requests.Session, "request", lambda self, *args, **kwargs: said.update(kwargs))
    authority = tmp_path / "ca.pem"
    authority.write_text("")
    made = transport.session(authority, (authority, authority), 7.0)
    made.get("https://plant", verify=True)
    assert (str(authority), (10.0, 7.0)) == (said["verify"], said["timeout"])
    assert (str(authority), str(authority)) == made.cert
    with made.unhurried():
        made.get("https://plant", verify=True)
    assert (10.0, None) == said["timeout"]


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Before anything is sent."""
    with pytest.raises(FileNotFoundError, match=r"certificate not found: .*ca\.pem"):
        transport.session(tmp_path / "ca.pem", None, 1.0)


def test_a_probe_tells_soon_whether_a_datasite_answers() -> None:
    """Nobody there, somebody who says nothing, an error, an answer: only the last counts."""
    with Answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}") as up, Answering(b"") as hung:
        assert transport.answers(transport.parsed("http://127.0.0.1", up.port), transport.session(None, None, 5.0))
        assert not transport.answers(
            transport.parsed("http://127.0.0.1", hung.port), transport.session(None, None, 0.1)
        )
    assert not transport.answers(transport.parsed("http://127.0.0.1", 9), transport.session(None, None, 0.1))
    with Answering(b"HTTP/1.1 503 Away\r\ncontent-length: 0\r\n\r\n") as down:
        assert not transport.answers(
            transport.parsed("http://127.0.0.1", down.port), transport.session(None, None, 5.0)
        )


class Answering:
    """Listens, and says ``answer`` to the first that calls; nothing, if that is empty."""

    def __init__(self, answer: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answer = answer

    def __enter__(self) -> Answering:
        if self._answer:
            threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        caller, _ = self._listener.accept()
        with caller:
            caller.recv(65536)
            caller.sendall(self._answer)
