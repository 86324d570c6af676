"""Answers with the files of the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from decodery.serving.page.parameter_form import parameter_form
from decodery.serving.service import Service

Handler = Callable[[Service, Request], Awaitable[Response]]

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
# The path of what `parameter_form` returns.
PARAMETERS = "/assets/parameters.json"
# The path of the list of all files below the assets, for the service worker.
LIST = "/assets/files.json"
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
    # The service worker may answer for the whole page, not for its own folder alone.
    "service-worker-allowed": "/",
}


def files() -> dict[str, Path]:
    """Returns the page's files by the paths under which they are served."""
    assets = (path for path in sorted(ASSETS.rglob("*")) if path.suffix in CONTENT_TYPES)
    return {"/": FOLDER / "index.html"} | {f"/{path.relative_to(FOLDER).as_posix()}": path for path in assets}


def page_handlers() -> list[tuple[str, str, Handler]]:
    """Returns the routes of the page: method, path and handler. The files are read here, once."""
    contents = {path: (file.read_bytes(), file.suffix) for path, file in files().items()}
    contents[PARAMETERS] = (json.dumps(parameter_form()).encode(), ".json")
    return [("GET", path, StaticFile(body, suffix)) for path, (body, suffix) in contents.items()]


def list_handler(paths: Iterable[str]) -> tuple[str, str, Handler]:
    """Returns the route of the list of the page's files, which are served under these paths."""
    assets = [path.removeprefix("/") for path in paths if path != "/"]
    return "GET", LIST, StaticFile(json.dumps(assets).encode(), ".json")


class StaticFile:
    """Is a handler that answers with the bytes of a file, or with 304 to a browser that has them.

    `suffix` is that of the file's name. `policy` is its content security policy.
    """

    def __init__(self, body: bytes, suffix: str, policy: str = POLICY) -> None:
        self._body = body
        self._tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {**HEADERS, "content-security-policy": policy, "etag": self._tag}
        self._kind = CONTENT_TYPES[suffix]

    async def __call__(self, service: Service, request: Request) -> Response:
        if request.headers.get("if-none-match") == self._tag:
            return Response(status_code=304, headers=self._headers)
        return Response(self._body, headers={**self._headers, "content-type": self._kind})
