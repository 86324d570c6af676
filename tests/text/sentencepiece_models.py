"""Writes small SentencePiece models, and the character maps in them."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

from decodery.text.tokenizer.spelling import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED

Piece = tuple[str, float, int]

SPECIAL: list[Piece] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
BYTES: list[Piece] = [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
# Pieces with overlaps, ties in text and characters that occur only within longer pieces.
WORDS: list[Piece] = [
    (text, -0.25 * rank - 1, NORMAL)
    for rank, text in enumerate(
        (
            *(
                "▁the",
                "the",
                "▁",
                "t",
                "h",
                "e",
                "th",
                "he",
                "▁t",
                "a",
                "b",
                "c",
                "ab",
                "bc",
                "abc",
                "▁a",
                "▁ab",
            ),
            *(
                "<",
                "/",
                "s",
                ">",
                "</",
                "s>",
                "0x",
                "A",
                "0",
                "x",
                "é",
                "ß▁",
                "日本",
                "本",
                "▁▁",
                "aa",
                "aaa",
                "n",
            ),
            *("Xa", "aX"),
        )
    )
]
# Those of which every character is a piece, as in a vocabulary that was trained by merging.
MERGED = [piece for piece in WORDS if not set(piece[0]) & set("Xß日")]
# Some of them have the same score, as the pieces that are added to a trained vocabulary.
TIED = [(text, -1.0 if len(text) > 1 else score, kind) for text, score, kind in MERGED]
MARK: Piece = ("<mark>", 0.0, USER_DEFINED)


def model_bytes(
    pieces: Iterable[Piece],
    *,
    algorithm: int = 1,
    rules: bytes = b"",
    space_prefix: bool = True,
    merge_spaces: bool = False,
    mark_spaces: bool = True,
    space_behind: bool = False,
    unknown: int = 0,
    begin: int = 1,
    end: int = 2,
    pad: int = -1,
) -> bytes:
    """Returns a SentencePiece model with these pieces; the numbers of the fields are those of its schema."""
    entries = b"".join(
        _field(1, _field(1, text.encode()) + _float(2, score) + _number(3, kind))
        for text, score, kind in pieces
    )
    trainer = _number(3, algorithm) + _number(24, space_behind)
    trainer += b"".join(
        _number(field, token) for field, token in zip(range(40, 44), (unknown, begin, end, pad), strict=True)
    )
    normalizer = (
        _field(2, rules) + _number(3, space_prefix) + _number(4, merge_spaces) + _number(5, mark_spaces)
    )
    return entries + _field(2, trainer) + _field(3, normalizer)


def character_map(rules: Mapping[str, str]) -> bytes:
    """Returns a compiled character map of the rules (a text and what replaces it)."""
    replacements = b""
    values: dict[bytes, int] = {}
    for text, replacement in rules.items():
        values[text.encode()] = len(replacements)
        replacements += replacement.encode() + b"\0"
    units = _double_array(values)
    return struct.pack("<I", 4 * len(units)) + struct.pack(f"<{len(units)}I", *units) + replacements


def _double_array(values: Mapping[bytes, int]) -> list[int]:
    units: dict[int, int] = {}
    taken = {0}
    bases: set[int] = set()

    def place(node: int, label: int, depth: int, keys: list[bytes]) -> None:
        labels = sorted({key[depth] for key in keys if len(key) > depth})
        leaf = next((key for key in keys if len(key) == depth), None)
        below = ([0] if leaf is not None else []) + labels
        base = next(
            base
            for base in range(1, 1 << 21)
            if base not in bases and not taken & {base ^ byte for byte in below}
        )
        bases.add(base)
        taken.update(base ^ byte for byte in below)
        units[node] = (node ^ base) << 10 | (leaf is not None) << 8 | label
        if leaf is not None:
            units[base] = values[leaf] | 1 << 31
        for byte in labels:
            place(
                base ^ byte, byte, depth + 1, [key for key in keys if len(key) > depth and key[depth] == byte]
            )

    place(0, 0, 0, list(values))
    # An unused unit has a label that no node has, its index being that of the root.
    return [units.get(index, 0x80000000) for index in range(max(units) + 256)]


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _float(number: int, value: float) -> bytes:
    return _varint(number << 3 | 5) + struct.pack("<f", value)


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)


def _varint(value: int) -> bytes:
    data = b""
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])
