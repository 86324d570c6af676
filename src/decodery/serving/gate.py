"""Decides who may come in: keys, Host and Origin; answers preflights; wraps every request in a log line."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from decodery.serving.errors import ApiError, body_for, invalid
from decodery.serving.settings import ServerSettings

# The paths that need no key. Everything else does, also what does not exist.
OPEN_PATHS = frozenset({"/health", "/ready", "/"})
OPEN_FOLDER = "/assets/"
_LOCAL_HOST = re.compile(rb"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?", re.IGNORECASE)


class Gate:
    """Is an ASGI application that lets requests through to another one.

    It refuses, in this order: two Hosts or Origins, a foreign Host where no key is asked for (DNS rebinding),
    a foreign Origin, and a missing or wrong key. It answers preflights. It puts the key's identity into
    `scope["identity"]`: a digest, b"" without keys.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._keys = [key.encode() for key in settings.keys]
        self._origins = {origin.encode() for origin in settings.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
        found = dict(headers)
        origin = found.get(b"origin")
        try:
            _check_once(headers)
            self._check_host(found)
            if self._check_origin(scope, found) and origin:
                send = _with_origin(send, origin)
            if _is_preflight(scope, found):
                await _answer_preflight(send)
                return
            scope["identity"] = self._identity(scope["path"], headers)
        except ApiError as error:
            await send_error(scope, send, error)
            return
        await self._app(scope, receive, send)

    def _check_host(self, headers: dict[bytes, bytes]) -> None:
        if not self._keys and not _LOCAL_HOST.fullmatch(headers.get(b"host", b"")):
            raise ApiError(403, "without keys the server answers this machine only, by its local names")

    def _check_origin(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Returns True if the Origin is one of those allowed; False without one, and for the server's own."""
        origin = headers.get(b"origin")
        if origin is None:
            return False
        if origin in self._origins:
            return True
        own = scope["scheme"].encode() + b"://" + headers.get(b"host", b"")
        if origin.lower() != own.lower() or _is_preflight(scope, headers):
            raise ApiError(403, "this web page may not call the server: see --allow-origin")
        return False

    def _identity(self, path: str, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
        """Returns the digest of the key that came; b"" for open paths and without keys."""
        if not self._keys:
            return b""
        for given in _given_keys(headers):
            # All keys are compared, so that the time does not tell which one it was.
            if sum(hmac.compare_digest(given, key) for key in self._keys):
                return hashlib.sha256(given).digest()
        if path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return b""
        raise ApiError(401, "a valid key is needed: Authorization: Bearer KEY", code="invalid_api_key")


def _check_once(headers: Sequence[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    if names.count(b"host") > 1 or names.count(b"origin") > 1:
        raise invalid("a request has one Host and at most one Origin")


def _given_keys(headers: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
    keys = []
    for name, value in headers:
        if name == b"x-api-key":
            keys.append(value.strip())
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            keys.append(value[7:].strip())
    return keys


def _is_preflight(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    return (
        scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers
    )


async def _answer_preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE"),
        (b"access-control-allow-headers", b"authorization, content-type, x-api-key"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body"})


def _with_origin(send: Send, origin: bytes) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            added = [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
            message = {**message, "headers": [*message.get("headers", ()), *added]}
        await send(message)

    return sending


async def send_error(scope: Scope, send: Send, error: ApiError) -> None:
    """Sends an error as a whole answer, in the form of the interface that the path belongs to."""
    body = json.dumps(body_for(scope["path"], error), ensure_ascii=False).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
