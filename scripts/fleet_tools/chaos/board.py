"""A central dashboard that answers as it is told: well, slowly, with garbage, or not at all. It keeps nothing."""

from __future__ import annotations

import threading
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SLOW = 30.0
_GARBAGE = (
    (200, b"\x00\xff<html>{{{"),
    (500, b"Traceback (most recent call last):"),
    (302, b""),
    (200, b"[" * 100_000),
)


class Mood(StrEnum):
    WELL = "well"
    SLOW = "slow"
    GARBAGE = "garbage"
    DOWN = "down"


class Board:
    """Open from the start on a port of its own; ``become`` changes how it answers from then on."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.mood = Mood.DOWN
        self.asked = 0
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self.become(Mood.WELL)

    def become(self, mood: Mood) -> None:
        if mood is Mood.DOWN:
            self.close()
        elif self._server is None:
            self._open()
        if mood is not Mood.SLOW:
            self._released.set()
            self._released = threading.Event()
        self.mood = mood

    def _open(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        board = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                board.asked += 1
                if board.mood is Mood.SLOW:
                    board._released.wait(_SLOW)
                code, body = (200, b"{}") if board.mood is not Mood.GARBAGE else _GARBAGE[board.asked % len(_GARBAGE)]
                self.send_response(code)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away meanwhile is what this is about."""
