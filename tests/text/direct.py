"""Encodes texts in the plainest way, by the definitions of the algorithms."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

from decodery.text.tokenizer.pieces import Pieces
from decodery.text.tokenizer.spelling import BYTE, NORMAL


def merged_by_score(text: str, pieces: Pieces) -> list[int]:
    """Returns SentencePiece's BPE: the neighbours with the best-scored piece merge, the leftmost first."""
    ids = {text: place for place, text in enumerate(pieces.texts)}
    parts = list(text.replace(" ", "▁"))
    while True:
        known = [
            (pieces.scores[ids[pair]], -place)
            for place, pair in enumerate(map("".join, pairwise(parts)))
            if pair in ids and pieces.kinds[ids[pair]] == NORMAL
        ]
        if not known:
            break
        place = -max(known)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return _ids(parts, ids, pieces)


def likeliest(text: str, pieces: Pieces) -> list[int]:
    """Returns the Unigram model's pieces: those with the largest sum of scores.

    A character without a piece of its own is unknown, and costs 10 more than the worst piece.
    """
    usable = {
        t: i for i, (t, kind) in enumerate(zip(pieces.texts, pieces.kinds, strict=True)) if kind == NORMAL
    }
    worst = min(pieces.scores[token] for token in usable.values()) - 10
    best: list[tuple[float, list[str]]] = [(0.0, [])] + [(-math.inf, [])] * len(text)
    for start in range(len(text)):
        total, parts = best[start]
        for end in range(start + 1, len(text) + 1):
            part = text[start:end]
            if part in usable:
                score = total + pieces.scores[usable[part]]
            elif end == start + 1:
                score = total + worst
            else:
                continue
            if score > best[end][0]:
                best[end] = (score, [*parts, part])
    return _ids(best[-1][1], usable, pieces)


def merged_by_rank(data: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """Returns tiktoken's BPE of a piece: the pair of the lowest rank merges, unless the piece is a token."""
    parts = [data] if data in ranks else [bytes([byte]) for byte in data]
    while True:
        pairs = [left + right for left, right in pairwise(parts)]
        known = [(ranks[pair], place) for place, pair in enumerate(pairs) if pair in ranks]
        if not known:
            return [ranks[part] for part in parts]
        place = min(known)[1]
        parts[place : place + 2] = [pairs[place]]


def _ids(parts: list[str], ids: Mapping[str, int], pieces: Pieces) -> list[int]:
    found: list[int] = []
    bytes_of = {
        t: i for i, (t, kind) in enumerate(zip(pieces.texts, pieces.kinds, strict=True)) if kind == BYTE
    }
    for part in parts:
        if part in ids:
            found.append(ids[part])
        elif bytes_of:
            found += [bytes_of[f"<0x{byte:02X}>"] for byte in part.encode()]
        elif pieces.unknown is not None and found[-1:] != [pieces.unknown]:
            found.append(pieces.unknown)
    return found
