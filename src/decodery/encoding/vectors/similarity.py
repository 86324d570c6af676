"""Compares vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.encoding.results import Embeddings
from decodery.encoding.vectors.precision import BITS, signs
from decodery.encoding.vectors.unit_length import of_unit_length
from decodery.encoding.vectors.vector_settings import METRICS
from decodery.errors import ParameterError

WRONG = "vectors to compare must be rows of numbers, or texts"


def similarities(a: Any, b: Any, metric: str) -> NDArray[np.float32]:
    """Returns how alike the vectors a [n, width] and b [m, width] are, [n, m]: more is more alike.

    "cosine" and "dot" are products, "euclidean" and "manhattan" distances below 0. Bits of `Embeddings` are
    compared with each other as dimensions of -1 and 1: each metric orders them by their Hamming distance.
    Raises `ParameterError` for another metric, for vectors that do not match, and for int8 and uint8, whose
    numbers mean nothing without their ranges.
    """
    if metric not in METRICS:
        raise ParameterError(f"metric must be one of {', '.join(METRICS)}, not {metric!r}")
    if _is_bits(a) != _is_bits(b):
        raise ParameterError("one side holds bits and the other does not: embed both in the same precision")
    one, two = _rows(a), _rows(b)
    if not len(one) or not len(two):
        return np.zeros((len(one), len(two)), np.float32)
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


def _is_bits(vectors: Any) -> bool:
    return isinstance(vectors, Embeddings) and vectors.precision in BITS


def _rows(vectors: Any) -> NDArray[np.float32]:
    if isinstance(vectors, Embeddings) and vectors.precision in BITS:
        return signs(vectors.vectors, vectors.dimensions)
    try:
        given = np.asarray(vectors)
        found = given.astype(np.float32)
    except (TypeError, ValueError):
        raise ParameterError(WRONG) from None
    if given.dtype in (np.int8, np.uint8):
        raise ParameterError(
            f"numbers in {given.dtype} are codes or packed bits, which cannot be compared as vectors: embed"
            ' in float32, or give the whole result of embed with precision="binary" or "ubinary"'
        )
    if found.ndim not in (1, 2):
        raise ParameterError(WRONG)
    if not np.isfinite(found).all():
        raise ParameterError("vectors to compare hold numbers that are not finite")
    return np.atleast_2d(found) if found.shape != (0,) else found.reshape(0, 0)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return of_unit_length(rows).astype(np.float32)
