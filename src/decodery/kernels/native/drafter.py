"""Calls the compiled drafter, which drafts tokens for the streams of one engine (native/drafting.hpp)."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from decodery.kernels.native.library import library

# Drafts of one stream in one step, at most.
MOST_DRAFTS = 7
# Tokens of earlier texts, and successors, that are kept of one salt at most.
MOST_TOKENS, MOST_SUCCESSORS = 32_768, 65_536
# Where a draft comes from, in the order of native/drafting.hpp.
SOURCES = ("text", "earlier texts", "successors")
# The struct DraftArgs, and how many words a row has in what it finds.
_ARGS = struct.Struct("=qqqqqdq")
_WORDS = 1 + 2 * MOST_DRAFTS


class Drafting(NamedTuple):
    """Holds a row to draft for: its stream and salt, its known tokens, and how many drafts may run.

    A stream has one number as long as it lives. Its tokens only grow.
    """

    stream: int
    salt: int
    tokens: array[int]
    most: int


@dataclass(frozen=True, slots=True)
class Draft:
    """Holds the tokens that are expected to follow a row, and where each comes from."""

    tokens: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()


NO_DRAFT = Draft()


class Drafter:
    """Drafts for streams, and learns from the tokens that came. One thread at a time may call it.

    With `remember_texts`, the streams of one salt share their texts and the successors of tokens.
    """

    def __init__(self, *, remember_texts: bool = True) -> None:
        self._library = library()
        self._handle = self._library.decodery_new_drafter(remember_texts)
        self._found = array("q")

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            self._library.decodery_free_drafter(self._handle)

    def __len__(self) -> int:
        """Returns the number of streams that have drafted and have not ended."""
        return int(self._library.decodery_streams(self._handle))

    def draft(
        self, rows: Sequence[Drafting], besides: int, times: array[float], *, least: float
    ) -> list[Draft]:
        """Returns the drafts that each row runs in the next step.

        The step runs `besides` more tokens, and takes `times[n]` (float64) if it runs n tokens in all. The
        drafts are those with the most expected tokens over its time; they run only where these rise by the
        factor `least`.
        """
        count = len(rows)
        asked = array("q")
        for stream, salt, tokens, most in rows:
            asked.extend((stream, salt, *tokens.buffer_info(), most))
        if len(self._found) < count * _WORDS:
            self._found = array("q", bytes(8 * count * _WORDS))
        found = self._found
        held = (asked.buffer_info()[0], times.buffer_info()[0], len(times) - 1, least, found.buffer_info()[0])
        self._library.decodery_draft(self._handle, _ARGS.pack(count, besides, *held))
        return [_draft_of(found, i * _WORDS) if found[i * _WORDS] else NO_DRAFT for i in range(count)]

    def end(self, stream: int, tokens: array[int]) -> None:
        """Ends a stream with these tokens, and remembers them as a text."""
        address, count = tokens.buffer_info()
        self._library.decodery_end_stream(self._handle, stream, address, count)

    def drop(self, stream: int) -> None:
        """Forgets a stream and its text."""
        self._library.decodery_end_stream(self._handle, stream, None, 0)

    def forget(self, salt: int) -> None:
        """Forgets the texts and successors of a salt; streams that have not ended keep them until then."""
        self._library.decodery_forget_salt(self._handle, salt)


def _draft_of(found: array[int], start: int) -> Draft:
    middle = start + 1 + found[start]
    tokens, sources = found[start + 1 : middle], found[middle : middle + found[start]]
    return Draft(tuple(tokens), tuple(SOURCES[i] for i in sources))
