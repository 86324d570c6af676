"""Ranks passages by the words that they share with a query (BM25)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.search.extras import extra

# Chinese and Japanese have no spaces between words: each character counts as a word.
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")


def words(text: str) -> list[str]:
    """Returns the words of a text, in lower case."""
    return WORD.findall(text.casefold())


def keyword_library() -> Any:
    """Returns the library that ranks; raises `DecoderyError` without it."""
    return extra("bm25s", "ranking by words")


class Keywords:
    """Ranks passages by BM25, with the settings k1 = 1.5 and b = 0.75.

    Lù, BM25S: Orders of magnitude faster lexical search via eager sparse scoring (2024). Raises
    `DecoderyError` without the library.
    """

    def __init__(self, passages: Iterable[str]) -> None:
        bm25s = keyword_library()
        self._numbers: dict[str, int] = {}
        numbered = [
            [self._numbers.setdefault(word, len(self._numbers)) for word in words(passage)]
            for passage in passages
        ]
        self._count = len(numbered)
        self._ranker: Any = None
        if self._numbers:
            self._ranker = bm25s.BM25(k1=1.5, b=0.75)
            self._ranker.index((numbered, self._numbers), show_progress=False)

    def scores(self, query: str) -> NDArray[np.float32]:
        """Returns the scores [passages] for a query; 0 for a passage without any of its words."""
        known = [self._numbers[word] for word in words(query) if word in self._numbers]
        if not known:
            return np.zeros(self._count, np.float32)
        scores: NDArray[np.float32] = self._ranker.get_scores_from_ids(known)
        return scores
