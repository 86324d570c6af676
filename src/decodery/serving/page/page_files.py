"""Answers with the files of the chat page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.service import Service

FOLDER = Path(__file__).parent
# The page's files by their paths, with their content types.
FILES: Mapping[str, tuple[str, str]] = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/assets/chat.css": ("chat.css", "text/css; charset=utf-8"),
    "/assets/chat.js": ("chat.js", "text/javascript; charset=utf-8"),
}
# A page that can run its own script and ask its own server, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


def page_handlers() -> list[tuple[str, str, Callable[[Service, Request], Awaitable[Response]]]]:
    """Returns the routes of the page: method, path and handler. The files are read here, once."""
    return [("GET", path, _File(FOLDER / name, kind)) for path, (name, kind) in FILES.items()]


class _File:
    """Is a handler that answers with one file."""

    def __init__(self, path: Path, kind: str) -> None:
        self._body = path.read_bytes()
        self._headers = {**HEADERS, "content-type": kind}

    async def __call__(self, service: Service, request: Request) -> Response:
        return Response(self._body, headers=self._headers)
