"""Ranks the parts of files by sparse vectors (SPLADE), which are kept in memory for one search."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from decodery.encoding.spans import lowered
from decodery.llm import LLM
from decodery.search.baselines import chunk_hits, file_chunks
from decodery.search.chunks import By, Chunking
from decodery.search.index import SearchHit


def sparse_hits(
    query: str, files: Iterable[str | Path], llm: LLM, *, by: By | None = None, top: int = 10
) -> list[SearchHit]:
    """Returns the chunks of files whose sparse vectors have the largest product with that of a query.

    All chunks are read by the model in each call. Raises `ModelError` for a model without a head of masked
    tokens.
    """
    (wanted,) = llm.embed_sparse(query, query=True)
    parts = llm.encoder
    limit = parts.rules.limit - parts.tokenizer.single_layout.added

    def count(text: str) -> int:
        text = lowered(text) if parts.rules.lowers else text
        return len(parts.tokenizer.encode(text, add_special_tokens=False))

    chunks = file_chunks(files, Chunking(by or "auto", limit, count))
    found = llm.embed_sparse([chunk.above + chunk.text for chunk in chunks], document=True, long="cut")
    scores = np.array([one.dot(wanted) for one in found], np.float32)
    return chunk_hits(chunks, scores, top)
