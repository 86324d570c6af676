"""Answers with the files of the page."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.service import Service

FOLDER = Path(__file__).parent
ASSETS = FOLDER / "assets"
CONTENT_TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
# A page that can run its own scripts and ask its own server, and nothing else.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self';"
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


def files() -> dict[str, Path]:
    """Returns the page's files by the paths under which they are served."""
    assets = (path for path in sorted(ASSETS.rglob("*")) if path.suffix in CONTENT_TYPES)
    return {"/": FOLDER / "index.html"} | {f"/{path.relative_to(FOLDER).as_posix()}": path for path in assets}


def page_handlers() -> list[tuple[str, str, Callable[[Service, Request], Awaitable[Response]]]]:
    """Returns the routes of the page: method, path and handler. The files are read here, once."""
    return [("GET", path, _File(file)) for path, file in files().items()]


class _File:
    """Is a handler that answers with one file, or with 304 to a browser that has it."""

    def __init__(self, path: Path) -> None:
        self._body = path.read_bytes()
        self._tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        self._headers = {**HEADERS, "etag": self._tag}
        self._kind = CONTENT_TYPES[path.suffix]

    async def __call__(self, service: Service, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._tag:
            return Response(status_code=304, headers=self._headers)
        return Response(self._body, headers={**self._headers, "content-type": self._kind})
