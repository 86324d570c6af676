"""Finds the bytes of a text that each of its tokens stands for."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate, pairwise

from decodery.text.tokenizer.spelling import SPACE_MARK

Span = tuple[int, int]
# The categories of characters that tokenizers drop: spaces, controls and marks upon letters.
_DROPPED = "ZCM"
_MARK = SPACE_MARK.encode()


def byte_spans(text: str, pieces: Sequence[bytes], characters: Sequence[Span]) -> list[Span]:
    """Returns the span of each token in the text's UTF-8, from its first byte to the one behind its last.

    `pieces` are the bytes of the tokens, and `characters` the spans in characters that the tokenizers library
    reports. Those are too wide for parts of a character, and wrong where a normalizer is our own. So a
    token's own bytes decide where they are found in the text. A space that the tokenizer adds takes no
    bytes. Where the tokenizer changes the text before it splits it, tokens have the library's spans if those
    can be right, else they share the span of the changed stretch.
    """
    data = text.encode()
    found = _from_the_start(data, pieces)
    if len(found) == len(pieces):
        return found
    wide = _in_bytes(text, characters)
    if _plausible(data, wide):
        return _within(data, pieces, wide)
    begin = found[-1][1] if found else 0
    tail = _from_the_end(data, pieces[len(found) :], begin)
    end = tail[0][0] if tail else len(data)
    return [*found, *[(begin, end)] * (len(pieces) - len(found) - len(tail)), *tail]


def _from_the_start(data: bytes, pieces: Sequence[bytes]) -> list[Span]:
    """Returns the spans of the first tokens whose bytes follow each other in the text."""
    spans: list[Span] = []
    place = 0
    for piece in pieces:
        span = _span(data, piece, place)
        if span is None:
            break
        spans.append(span)
        place = span[1]
    return spans


def _span(data: bytes, piece: bytes, place: int) -> Span | None:
    """Returns where a token is that follows this place; None if other bytes do.

    A token that begins with a space may lack it in the text, or have more whitespace before it.
    """
    start = place
    while True:
        for own in (piece, piece.removeprefix(b" ")):
            end = _end(data, own, start)
            if end is not None and (own or start == place):
                return start, end
        if not piece.startswith(b" ") or not data[start : start + 1].isspace():
            return None
        start += 1


def _end(data: bytes, piece: bytes, place: int) -> int | None:
    """Returns where a token ends that begins at this place; None if other bytes are there.

    SentencePiece reads its own mark of a space as a space.
    """
    if data.startswith(piece, place):
        return place + len(piece)
    if _MARK not in data[place : place + len(_MARK) * len(piece)]:
        return None
    for byte in piece:
        if data[place : place + 1] == bytes((byte,)):
            place += 1
        elif byte == ord(" ") and data.startswith(_MARK, place):
            place += len(_MARK)
        else:
            return None
    return place


def _from_the_end(data: bytes, pieces: Sequence[bytes], begin: int) -> list[Span]:
    """Returns the spans of the last tokens whose bytes end the text, none before `begin`."""
    spans: list[Span] = []
    place = len(data)
    for piece in reversed(pieces):
        if not data.endswith(piece, begin, place):
            piece = piece.removeprefix(b" ")
            if not piece or not data.endswith(piece, begin, place):
                break
        spans.append((place - len(piece), place))
        place -= len(piece)
    return spans[::-1]


def _in_bytes(text: str, characters: Sequence[Span]) -> list[Span]:
    """Returns spans of characters as spans of bytes; one beyond the text becomes (-1, -1)."""
    places = [0, *accumulate(len(character.encode()) for character in text)]
    size = len(text)
    return [(places[a], places[b]) if 0 <= a <= b <= size else (-1, -1) for a, b in characters]


def _plausible(data: bytes, spans: Sequence[Span]) -> bool:
    """True if the spans are in order and leave out only what tokenizers drop."""
    ends = [0, *accumulate((end for _, end in spans), max), len(data)]
    starts = [*(start for start, _ in spans), len(data)]
    ordered = all(0 <= a <= b for a, b in pairwise(starts))
    return ordered and not any(
        unicodedata.category(character)[0] not in _DROPPED and character != "\N{REPLACEMENT CHARACTER}"
        for end, start in zip(ends, starts, strict=False)
        if start > end
        for character in data[end:start].decode()
    )


def _within(data: bytes, pieces: Sequence[bytes], wide: Sequence[Span]) -> list[Span]:
    """Returns these spans, made narrower where a token's own bytes continue the text inside its span."""
    spans: list[Span] = []
    place = 0
    for piece, (start, end) in zip(pieces, wide, strict=True):
        inside = start <= place and place + len(piece) <= end
        span = (place, place + len(piece)) if inside and data.startswith(piece, place) else (start, end)
        spans.append(span)
        place = max(place, span[1])
    return spans
