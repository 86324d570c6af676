"""Keeps the state of a request from before a step."""

from __future__ import annotations

from decodery.engine.request import Request


class Snapshot:
    """Holds a request's state from before a step computes, to restore it after an interrupt."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self._sequences = list(request.sequences)
        self._rows = [member.row for member in request.members]
        self._context = request.context

    def restore(self) -> None:
        """Sets the request's sequences, rows and collected states back, and clears its page keys."""
        request = self.request
        request.sequences, request.context = self._sequences, self._context
        for member, row in zip(request.members, self._rows, strict=True):
            member.row = row
            member.page_keys = []
