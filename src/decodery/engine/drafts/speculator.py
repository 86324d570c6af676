"""Drafts tokens for the rows of an engine, as long as drafts make its steps worth more than their time."""

from __future__ import annotations

from collections.abc import Sequence

from decodery.decoding.rows import Row, Survivor
from decodery.engine.drafts.step_time import StepTime
from decodery.kernels.native.drafter import NO_DRAFT, Draft, Drafter, Drafting

# Of so many salts the earlier texts and successors are kept.
MOST_SALTS = 16
# Drafts run only where they are expected to make decoding faster by this factor.
_LEAST = 1.05
# With more rows than these, no drafts can pay, and none are looked for.
MOST_ROWS = 16


class Speculator:
    """Drafts for the rows of an engine, and learns from what came.

    A stream is known by the request's number and its own index.
    """

    def __init__(self, *, remember_texts: bool = True) -> None:
        self._time = StepTime()
        self._drafter = Drafter(remember_texts=remember_texts)
        # Numbers of the salts that were used last, which come last, and of the requests' streams.
        self._salts: dict[bytes, int] = {}
        self._streams: dict[int, dict[int, int]] = {}
        self._numbers = 0

    def drafts(self, rows: Sequence[Row], most: Sequence[int], besides: int) -> list[Draft]:
        """Returns the drafts that each row runs in the next step, at most `most[i]` of row i.

        The step runs `besides` more tokens that decode.
        """
        if len(rows) + besides > MOST_ROWS or not self._time.known:
            return [NO_DRAFT] * len(rows)
        asked = [
            Drafting(self._stream(row), self._salt(row.salt), row.tokens, limit)
            for row, limit in zip(rows, most, strict=True)
        ]
        return self._drafter.draft(asked, besides, self._time.times(), least=_LEAST)

    def learn(self, row: Row, survivors: Sequence[Survivor]) -> None:
        """Takes note of the text of a row that has ended."""
        for survivor in survivors:
            if survivor.finish is None or not row.streams:
                continue
            number = self._streams.get(row.request, {}).pop(row.streams[0], None)
            if number is not None:
                self._drafter.end(number, survivor.row.tokens)

    def learn_time(self, tokens: int, seconds: float) -> None:
        """Takes note of the time of a step that ran so many tokens, none of them of a prompt."""
        self._time.learn(tokens, seconds)

    def forget(self, request: int) -> None:
        """Forgets the streams of a request that has been removed."""
        for number in self._streams.pop(request, {}).values():
            self._drafter.drop(number)

    def _stream(self, row: Row) -> int:
        """Returns the number of a row's stream."""
        streams = self._streams.get(row.request)
        if streams is None:
            streams = self._streams[row.request] = {}
        number = streams.get(row.streams[0])
        if number is None:
            number = streams[row.streams[0]] = self._new_number()
        return number

    def _salt(self, salt: bytes) -> int:
        """Returns the number of a salt; of too many, the one used least lately is forgotten."""
        number = self._salts.pop(salt, 0) or self._new_number()
        # The last used one comes last.
        self._salts[salt] = number
        if len(self._salts) > MOST_SALTS:
            self._drafter.forget(self._salts.pop(next(iter(self._salts))))
        return number

    def _new_number(self) -> int:
        self._numbers += 1
        return self._numbers
