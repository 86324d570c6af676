"""Compares vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.encoding.vectors.vector_settings import METRICS
from decodery.errors import ParameterError

SMALLEST = 1e-12


def similarities(a: Any, b: Any, metric: str) -> NDArray[np.float32]:
    """Returns how alike the vectors a [n, width] and b [m, width] are, [n, m]: more is more alike.

    "cosine" and "dot" are products, "euclidean" and "manhattan" distances below 0. Raises `ParameterError`
    for another metric and for vectors that do not match.
    """
    if metric not in METRICS:
        raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    one, two = _rows(a), _rows(b)
    if one.shape[1] != two.shape[1]:
        raise ParameterError(
            f"the vectors have {one.shape[1]} and {two.shape[1]} dimensions: compare those of one model"
        )
    match METRICS[metric]:
        case "cosine":
            return _unit(one) @ _unit(two).T
        case "dot":
            return one @ two.T
        case "euclidean":
            distances = [np.sqrt(((two - row) ** 2).sum(1)) for row in one]
        case "manhattan":
            distances = [np.abs(two - row).sum(1) for row in one]
    return -np.array(distances, np.float32).reshape(len(one), len(two))


def _rows(vectors: Any) -> NDArray[np.float32]:
    try:
        found = np.asarray(vectors, np.float32)
    except (TypeError, ValueError):
        found = np.zeros((), np.float32)
    if found.ndim not in (1, 2):
        raise ParameterError("vectors to compare must be rows of numbers, or texts")
    return np.atleast_2d(found)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.sqrt((rows.astype(np.float64) ** 2).sum(1, keepdims=True))
    found: NDArray[np.float32] = (rows / np.maximum(lengths, SMALLEST)).astype(np.float32)
    return found
