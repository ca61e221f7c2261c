"""ASGI middleware that rejects bodies over a limit before anything parses them. Knows nothing of factories."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Answers 413 when a request's body is, or claims to be, larger than ``limit`` bytes.

    The body is read here and passed on in one piece. It is small by definition, and this also catches a sender that
    names a wrong length or none.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        body = None if self._announced(scope) > self.limit else await self._read(receive)
        if body is None:
            await self._too_large()(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    def _announced(self, scope: Scope) -> int:
        length = Headers(scope=scope).get("content-length", "0")
        return int(length[:20]) if length.isdecimal() else 0  # int() refuses thousands of digits

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body, or None once it is over the limit."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.limit:
                return None
        return body

    def _too_large(self) -> JSONResponse:
        reason = {"detail": f"the body is larger than {self.limit} bytes"}
        return JSONResponse(reason, status_code=413, headers={"connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return pending.pop() if pending else await receive()

    return again
