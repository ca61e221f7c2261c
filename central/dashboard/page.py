"""Serves the page for people: ``page.html`` with its style and its script. It contains no data; the page reads
``events`` itself.

The page loads everything from this server, and its headers make the browser refuse anything else. So a hostile factory
name cannot run as code even if the script inserts it in the wrong place, which trusted types forbid as well.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
_FILES = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def router() -> APIRouter:
    pages = APIRouter()
    for path, (name, media_type) in _FILES.items():
        _offer(pages, path, files("central.dashboard").joinpath(name).read_bytes(), media_type)
    return pages


def _offer(pages: APIRouter, path: str, content: bytes, media_type: str) -> None:
    @pages.get(path, include_in_schema=False)
    async def content_of() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)
