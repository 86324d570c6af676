"""Scores vectors against a query, finds the highest scores, and fuses rankings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.encoding.vectors.vector_settings import Metric

# Cormack, Clarke and Büttcher, Reciprocal Rank Fusion (2009).
RANK_OFFSET = 60

Vectors = NDArray[np.float32]
Scores = NDArray[np.float32]


def prepared(vectors: Vectors, metric: Metric) -> Vectors:
    """Returns vectors [n, width] as the metric compares them: for the cosine, of length 1 (or of zeros)."""
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if metric != "cosine":
        return vectors
    return of_unit_length(vectors).astype(np.float32)


def similarities(vectors: Vectors, query: Vectors, metric: Metric) -> Scores:
    """Returns the scores [n] of prepared vectors [n, width] for a prepared query [width].

    A vector's score has the same bits whatever the other vectors are, so a removed file changes no score.
    """
    if metric == "euclidean":
        difference = vectors - query
        distances: Scores = np.sqrt(np.einsum("ij,ij->i", difference, difference))
        return -distances
    if metric == "manhattan":
        totals: Scores = np.abs(vectors - query).sum(axis=1)
        return -totals
    # A product of BLAS sums a row in an order that depends on the row's place.
    scores: Scores = np.einsum("ij,j->i", vectors, query)
    return scores


def highest(scores: Scores, count: int) -> NDArray[np.int64]:
    """Returns the places of the `count` highest scores, the highest first; of equal ones the first place."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    places = np.flatnonzero(scores >= least)
    return places[np.argsort(-scores[places], kind="stable")][:count]


def fused(rankings: Sequence[Sequence[int]]) -> dict[int, float]:
    """Returns the items of some rankings with the sum of 1 / (60 + rank) over these."""
    found: dict[int, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, 1):
            found[item] = found.get(item, 0.0) + 1 / (RANK_OFFSET + rank)
    return found
