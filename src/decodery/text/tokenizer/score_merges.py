"""Merges pieces by their scores where the library's ranks of pairs cannot express the order."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tokenizers import PreTokenizedString, Token

from decodery.text.tokenizer import spelling
from decodery.text.tokenizer.spelling import BYTE, NORMAL


def order_is_by_place(texts: Sequence[str], scores: Sequence[float], kinds: Sequence[int]) -> bool:
    """True if of two pieces that overlap in a text the one further to the left merges first.

    That is so if their scores are equal. The library ranks pairs of pieces, so it would prefer one of the
    two everywhere. Runs of one character are no such pieces: their pairs can be ranked. The library also
    lacks the merges of a character that is no piece itself.
    """
    normal = {text for text, kind in zip(texts, kinds, strict=True) if kind == NORMAL}
    groups: dict[float, list[str]] = defaultdict(list)
    for text, score, kind in zip(texts, scores, kinds, strict=True):
        if kind == NORMAL and len(set(text)) > 1:
            groups[score].append(text)
    if any(not normal.issuperset(text) for group in groups.values() for text in group):
        return True
    return any(len(group) > 1 and _overlap(group) for group in groups.values())


def _overlap(group: Sequence[str]) -> bool:
    starts = {text[:cut] for text in group for cut in range(1, len(text))}
    return any(text[cut:] in starts for text in group for cut in range(1, len(text)))


class ScoreMerges:
    """Encodes texts by SentencePiece's BPE: the pair of neighbours whose piece has the best score merges.

    Of equal scores the leftmost merges first. It takes the place of a model, in `PreTokenizer.custom`.
    """

    def __init__(
        self, texts: Sequence[str], scores: Sequence[float], kinds: Sequence[int], unknown: int | None
    ) -> None:
        self._unknown = unknown
        self._ids: dict[str, int] = {}
        self._bytes: dict[int, int] = {}
        self._scores = scores
        for token, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
            if kind == NORMAL:
                self._ids[text] = token
            elif kind == BYTE and (byte := spelling.byte_token(text)) is not None:
                self._bytes[byte[0]] = token

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        text.tokenize(lambda part: [Token(token, "", (0, 0)) for token in self.encode(part)])

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text whose spaces are marked."""
        parts = list(text)
        before = list(range(-1, len(parts) - 1))
        behind = [*range(1, len(parts)), -1]
        queue: list[tuple[float, int, int, str]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right >= 0:
                merged = parts[left] + parts[right]
                token = self._ids.get(merged)
                if token is not None:
                    heapq.heappush(queue, (-self._scores[token], left, right, merged))

        for place in range(1, len(parts)):
            offer(place - 1, place)
        while queue:
            _, left, right, merged = heapq.heappop(queue)
            # Halves that have merged with others since then are empty or longer.
            if not parts[left] or not parts[right] or parts[left] + parts[right] != merged:
                continue
            parts[left], parts[right] = merged, ""
            behind[left] = behind[right]
            if behind[right] >= 0:
                before[behind[right]] = left
            offer(before[left], left)
            offer(left, behind[left])
        return self._tokens(part for part in parts if part)

    def _tokens(self, parts: Iterable[str]) -> list[int]:
        found: list[int] = []
        for part in parts:
            token = self._ids.get(part)
            if token is not None:
                found.append(token)
            elif self._bytes:
                found += [self._bytes[byte] for byte in part.encode() if byte in self._bytes]
            elif self._unknown is not None and found[-1:] != [self._unknown]:
                found.append(self._unknown)
        return found
