"""Reads SentencePiece models (`tokenizer.model`, `spiece.model`), which are protocol-buffer messages.

The numbers of the fields are those of `sentencepiece_model.proto`, the encoding that of Google's
specification of protocol buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decodery.errors import CheckpointError
from decodery.text.tokenizer.pieces import Pieces
from decodery.text.tokenizer.spelling import BYTE, NORMAL

UNIGRAM, BPE, WORDS, CHARACTERS = range(1, 5)

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# A message: the last value of each field, and the entries of field 1 if they are messages.
Message = dict[int, Any]


@dataclass(frozen=True, slots=True)
class PieceFile:
    """Holds a SentencePiece model: pieces, algorithm and the ids with a role (None: no such piece)."""

    pieces: Pieces
    algorithm: int
    begin: int | None
    end: int | None
    pad: int | None


def is_sentencepiece(data: bytes) -> bool:
    """True if a file begins as a SentencePiece model does: with an entry of the list of pieces."""
    return data[:1] == b"\x0a"


def read_pieces(file: Path) -> PieceFile:
    """Returns a SentencePiece model. Raises `CheckpointError`, naming the file, when it is damaged."""
    try:
        return _read(file.read_bytes())
    except (IndexError, ValueError, TypeError, struct.error, CheckpointError) as error:
        raise CheckpointError(f"{file} is no intact SentencePiece model: {error}") from None


def _read(data: bytes) -> PieceFile:
    entries: list[Message] = []
    parts: Message = {}
    for field, value in _fields(data):
        if field == 1:
            entries.append(dict(_fields(value)))
        else:
            parts[field] = value
    trainer = dict(_fields(parts.get(2, b"")))
    normalizer = dict(_fields(parts.get(3, b"")))
    texts = [_text(entry.get(1, b"")) for entry in entries]
    kinds = [int(entry.get(3, NORMAL)) for entry in entries]
    if not texts:
        raise CheckpointError("it has no pieces")
    _check(texts, kinds)
    pieces = Pieces(
        texts=texts,
        scores=[_number(entry.get(2, b"\0\0\0\0")) for entry in entries],
        kinds=kinds,
        unknown=_role(trainer, 40, 0, len(texts)),
        rules=bytes(normalizer.get(2, b"")),
        space_prefix=bool(normalizer.get(3, 1)),
        merge_spaces=bool(normalizer.get(4, 1)),
        mark_spaces=bool(normalizer.get(5, 1)),
        space_behind=bool(trainer.get(24, 0)),
    )
    algorithm = int(trainer.get(3, UNIGRAM))
    if algorithm not in (UNIGRAM, BPE, WORDS, CHARACTERS):
        raise CheckpointError(f"its algorithm has the unknown number {algorithm}")
    begin, end, pad = (_role(trainer, *role, len(texts)) for role in ((41, 1), (42, 2), (43, -1)))
    return PieceFile(pieces, algorithm, begin, end, pad)


def _check(texts: list[str], kinds: list[int]) -> None:
    first: dict[str, int] = {}
    for place, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
        if first.setdefault(text, place) != place:
            raise CheckpointError(f"the piece {text!r} has the ids {first[text]} and {place}")
        if not NORMAL <= kind <= BYTE:
            raise CheckpointError(f"the piece {text!r} is of the unknown kind {kind}")


def _role(trainer: Message, field: int, default: int, size: int) -> int | None:
    number = int(trainer.get(field, default))
    number = number - (1 << 64) if number >> 63 else number
    if number >= size:
        raise CheckpointError(f"a special token has the id {number}, and there are {size} pieces")
    return number if number >= 0 else None


def _text(value: bytes) -> str:
    return value.decode("utf-8")


def _number(value: bytes) -> float:
    number: float = struct.unpack("<f", value)[0]
    return number


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields the number and the value of each field: an integer for a varint, else bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise CheckpointError(f"a field has the unknown wire type {wire}")
        if at + size > len(data):
            raise CheckpointError("it ends within a field")
        yield field, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise CheckpointError("it ends within a number")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise CheckpointError("a number is longer than 64 bits")
