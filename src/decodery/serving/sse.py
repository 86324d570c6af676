"""Streams an answer as server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from decodery.serving.errors import ApiError
from decodery.serving.generation import Addition, ClientWatch, Generation

log = logging.getLogger("decodery.serving")
# One line end: a blank line would be an empty event to some clients.
PING = b": ping\n"
DONE = b"data: [DONE]\n\n"
FAILED = "the server failed; its log says more"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
dumps = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def data(value: Any) -> bytes:
    """Returns a value as one event."""
    return f"data: {dumps(value)}\n\n".encode()


def named(event: Mapping[str, Any]) -> bytes:
    """Returns an event under the name that is its `type`."""
    return f"event: {event['type']}\n".encode() + data(event)


class Chunks(Protocol):
    """Writes the events of one answer."""

    def opening(self) -> bytes:
        """Returns what comes before any text."""

    def written(self, additions: Sequence[Addition]) -> bytes:
        """Returns the events for what a step added; b"" for none."""

    def progress(self) -> bytes:
        """Returns what is new of the run besides its text; b"" for nothing."""

    def ping(self) -> bytes:
        """Returns what keeps a waiting stream alive."""

    def failed(self, error: ApiError) -> bytes:
        """Returns what ends the stream after an error."""

    def closing(self) -> bytes:
        """Returns what comes after the last text."""


class EventStream:
    """Is an ASGI application that streams a generation which has been queued, and closes it.

    After `pings` seconds in which nothing is sent, a ping is; None sends none. An error becomes an event,
    after which the answer ends. `ended` is called at the end, with the error if there was one.
    """

    def __init__(
        self,
        generation: Generation,
        chunks: Chunks,
        pings: float | None,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._generation = generation
        self._chunks = chunks
        self._pings = pings
        self._ended = ended
        self._task: asyncio.Task[Any] | None = None
        self._is_cut = False
        self._failure: Exception | None = None

    def cut(self) -> None:
        """Ends the answer at once, also if its client reads nothing."""
        if self._task is not None and not self._task.done():
            self._is_cut = True
            self._task.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error: BaseException | None = None
        self._task = asyncio.current_task()
        try:
            await self._answer(receive, send)
        except ClientDisconnect as gone:
            error = gone
        except asyncio.CancelledError as cancelled:
            error = cancelled
            if not self._is_cut:
                raise
        finally:
            self._task = None
            self._generation.close()
            self._ended(error or self._failure)

    async def _answer(self, receive: Receive, send: Send) -> None:
        try:
            async with ClientWatch(receive, self._generation.inbox):
                await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await self._stream(send)
        except ClientDisconnect:
            raise
        except Exception as error:
            self._failure = error
            shown = error if isinstance(error, ApiError) else ApiError(500, FAILED)
            if shown is not error:
                log.exception("a stream failed")
            await send({"type": "http.response.body", "body": self._chunks.failed(shown)})

    async def _stream(self, send: Send) -> None:
        clock, chunks = asyncio.get_running_loop().time, self._chunks
        await _send(send, chunks.opening())
        sent = clock()
        while not self._generation.done:
            left = None if self._pings is None else max(sent + self._pings - clock(), 0)
            additions = await self._generation.additions(left)
            body = b"" if additions is None else chunks.progress() + chunks.written(additions)
            # Some steps add nothing that can be told yet.
            if not body and self._pings is not None and clock() >= sent + self._pings:
                body = chunks.ping()
            if body:
                await _send(send, body)
                sent = clock()
        self._generation.check_valid(streamed=True)
        await send({"type": "http.response.body", "body": self._chunks.closing()})


async def _send(send: Send, body: bytes) -> None:
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
