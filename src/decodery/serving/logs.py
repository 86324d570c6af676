"""Writes one JSON line a request to a log, and tracebacks, without what people write."""

from __future__ import annotations

import json
import logging
import secrets
import time
import traceback
from time import perf_counter
from typing import Any, TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger("decodery.serving.requests")


def log_to(stream: TextIO, *, whole: bool) -> None:
    """Makes the root logger write lines to a stream; tracebacks without messages unless they may be `whole`.

    The message of an exception may quote what a client sent.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter() if whole else _Formatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Returns the lines of a record, of which another formatter may have left its own traceback."""
        own = logging.makeLogRecord(record.__dict__)
        own.exc_text = None
        return super().format(own)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Returns the places and types of an exception and of those that led to it, in their order."""
        parts: list[str] = []
        error: BaseException | None = ei[1]
        while error is not None:
            places = "".join(traceback.format_tb(error.__traceback__))
            parts.append(f"Traceback (most recent call last):\n{places}{type(error).__qualname__}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n\n".join(reversed(parts))


class RequestLog:
    """Is an ASGI application that logs each request of another one, and gives it an id.

    The id is the client's `x-request-id`, if it is short and printable; it goes into the answer too. What
    handlers put into `scope["record"]` is logged, and each text in `scope["warnings"]` becomes a header of
    the answer, `x-decodery-warning`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        usable = 0 < len(given) <= 128 and given.isascii() and given.decode("ascii").isprintable()
        request_id = given if usable else secrets.token_hex(8).encode()
        record = scope["record"] = {"request_id": request_id.decode()}
        warnings: list[str] = []
        scope["warnings"] = warnings
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (b"x-request-id", request_id)]
                headers += [(b"x-decodery-warning", text.encode()) for text in warnings]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, sending)
        finally:
            line = {
                "time": round(time.time(), 3),
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(perf_counter() - started, 4),
                **record,
            }
            log.info(json.dumps(line, ensure_ascii=False))
