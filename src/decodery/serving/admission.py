"""Counts the requests in a server: refuses those beyond its limits, and those that come while it stops."""

from __future__ import annotations

from decodery.serving.errors import ApiError


class Admission:
    """Counts the requests that run or wait, for the event loop's thread."""

    def __init__(self, queued: int) -> None:
        self._most_queued = queued
        self.queued = 0
        self.inside = 0
        self.draining = False

    def enter(self) -> Ticket:
        """Lets a request in, which waits from now on until it is told to begin.

        Raises `ApiError`: 429 if too many wait, 503 while the server stops.
        """
        if self.draining:
            raise ApiError(503, "the server is stopping", code="draining", retry_after=10)
        if self.queued >= self._most_queued:
            raise ApiError(
                429,
                f"{self.queued} requests wait already: try again later",
                code="queue_full",
                retry_after=1,
            )
        return Ticket(self)


class Ticket:
    """Counts one request: as waiting until `begin`, and as inside until `leave`."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._waits = self._inside = True
        admission.queued += 1
        admission.inside += 1

    def begin(self) -> None:
        """Counts the request as running: its prompt is computed. May be called again."""
        if self._waits:
            self._waits = False
            self._admission.queued -= 1

    def leave(self) -> None:
        """Counts the request no more; may be called again."""
        self.begin()
        if self._inside:
            self._inside = False
            self._admission.inside -= 1
