"""A small HTTP server in the place of a central dashboard. It keeps nothing; its users say how it answers."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class StandInCentral:
    """Closed at first; it can go away and come back on the same port. Override ``answer``."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._released = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def answer(self, path: str, body: bytes) -> tuple[int, bytes] | None:
        """Status code and body of the answer to a POST, in a thread of its own; None: hang up without one."""
        raise NotImplementedError

    def wait(self, seconds: float) -> None:
        """Hold an answer back, until ``release`` or ``close`` at the latest."""
        self._released.wait(seconds)

    def release(self) -> None:
        """Let every answer go that is held back."""
        self._released.set()
        self._released = threading.Event()

    @property
    def is_open(self) -> bool:
        return self._server is not None

    def open(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self._handler())
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.release()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        central = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                answer = central.answer(self.path, body)
                if answer is None:
                    return
                self.send_response(answer[0])
                self.send_header("content-length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, *_: Any) -> None:
                return

        return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that went away meanwhile is no news."""
