"""Hands out ``page.html``, the one page for people. It carries no data: the page fetches ``factories`` itself.

The page's own script and style are allowed by their hashes and nothing else is, so that a hostile factory name
could not run as code even if the page's script put it in the wrong place.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse


def router() -> APIRouter:
    html = files("central.dashboard").joinpath("page.html").read_text(encoding="utf-8")
    headers = {
        "content-security-policy": content_security_policy(html),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }
    pages = APIRouter()

    @pages.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(html, headers=headers)

    return pages


def content_security_policy(html: str) -> str:
    """A policy that allows the inline ``<script>`` and ``<style>`` of ``html`` and fetching from the same origin."""
    script, style = _source(html, "script"), _source(html, "style")
    return (
        f"default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _source(html: str, tag: str) -> str:
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
