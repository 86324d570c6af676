"""Keeps responses in memory, each for the key that it belongs to."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from decodery.serving.errors import ApiError

MOST_BYTES = 64 << 20


@dataclass(slots=True)
class Stored:
    """Holds a response, and the messages of its conversation up to and with its answer."""

    owner: bytes
    response: dict[str, Any]
    messages: list[dict[str, Any]] = field(default_factory=list)
    nbytes: int = 0


class ResponseStore:
    """Keeps the latest responses, of at most so many bytes together; the oldest ones go first."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._found: OrderedDict[str, Stored] = OrderedDict()

    def put(self, owner: bytes, response: dict[str, Any], messages: Sequence[Mapping[str, Any]]) -> None:
        """Keeps a response in place of an earlier one with its id."""
        self.remove(response["id"])
        nbytes = len(json.dumps(response)) + len(json.dumps(list(messages)))
        stored = Stored(owner, response, [dict(message) for message in messages], nbytes)
        self._found[response["id"]] = stored
        self._bytes += nbytes
        while self._bytes > self._most and self._found:
            self.remove(next(iter(self._found)))

    def get(self, owner: bytes, name: str, param: str | None = None) -> Stored:
        """Returns a response of this owner. Raises `ApiError` if there is none, or it is another's."""
        stored = self._found.get(name)
        if stored is None or stored.owner != owner:
            raise ApiError(404, "there is no such response here", param=param, code="response_not_found")
        return stored

    def remove(self, name: str) -> None:
        """Forgets a response, if it is there."""
        stored = self._found.pop(name, None)
        if stored is not None:
            self._bytes -= stored.nbytes
