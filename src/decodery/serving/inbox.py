"""Takes the events of one HTTP request from the worker's thread to the event loop."""

from __future__ import annotations

import asyncio
from collections import deque

from decodery.decoding.event import Event, PromptProgress

# What an engine tells of a prompt, with the prompt's place within the HTTP request.
Placed = tuple[int, Event | PromptProgress]


class Inbox:
    """Holds the events that a request's handler has not taken yet; for the event loop's thread.

    `fail` ends the wait with an exception: when the client goes away, time is over, or the server stops.
    """

    def __init__(self) -> None:
        self._events: deque[Placed] = deque()
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def put(self, placed: Placed) -> None:
        """Adds an event."""
        self._events.append(placed)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Lets the handler's present or next `take` raise the error; the first error stays."""
        self._failure = self._failure or error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def check(self) -> None:
        """Raises the error of `fail`, if there was one."""
        if self._failure is not None:
            raise self._failure

    async def take(self, seconds: float | None = None) -> list[Placed]:
        """Returns the events that have come, after waiting for the first; none if `seconds` pass without one.

        Raises the error of `fail`.
        """
        if not self._events and self._failure is None:
            await self._wait(seconds)
        self.check()
        taken = list(self._events)
        self._events.clear()
        return taken

    async def _wait(self, seconds: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if seconds is None else loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
