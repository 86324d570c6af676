"""Stores vectors in fewer bits.

Shakir, Aarsen and Lee, Binary and Scalar Embedding Quantization (2024).
"""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decodery.encoding.results import Precision
from decodery.errors import ParameterError

PRECISIONS: tuple[str, ...] = get_args(Precision)
BITS = ("binary", "ubinary")
STEPS = 255


def check_precision(precision: str, ranges: ArrayLike | None, width: int) -> NDArray[np.float32] | None:
    """Returns the ranges [2, width] that a precision needs, None for one that needs none.

    Raises `ParameterError` for an unknown precision and for ranges that are missing, not needed, or not the
    least and the largest number of each dimension.
    """
    if precision not in PRECISIONS:
        raise ParameterError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    if precision not in ("int8", "uint8"):
        if ranges is not None:
            raise ParameterError(f"ranges are for the precisions int8 and uint8, not for {precision}")
        return None
    if ranges is None:
        raise ParameterError(
            f"the precision {precision} needs ranges=, the least and the largest number of each dimension:"
            " embed many texts like yours in float32 and give the `ranges` of the result, the same ones each"
            " time"
        )
    try:
        found = np.asarray(ranges, np.float32)
    except (TypeError, ValueError):
        found = np.zeros(0, np.float32)
    if found.shape != (2, width) or not np.isfinite(found).all() or (found[0] > found[1]).any():
        raise ParameterError(
            f"ranges must be two rows of {width} numbers, the least and the largest of each dimension, not an"
            f" array of shape {found.shape} or one whose first row is larger"
        )
    return found


def dtype_of(precision: str) -> np.dtype[Any]:
    """Returns the type of the numbers of vectors in a precision."""
    return np.dtype({"binary": "int8", "ubinary": "uint8"}.get(precision, precision))


def at_precision(
    vectors: NDArray[np.float32], precision: str, ranges: NDArray[np.float32] | None
) -> NDArray[Any]:
    """Returns float32 vectors [n, width] in a precision.

    "int8" and "uint8" divide the range of each dimension into 255 steps, and numbers beyond it become its
    ends. "binary" and "ubinary" hold a bit for each dimension, 1 where it is above 0: eight in a byte, the
    first one highest; "binary" are those bytes less 128.
    """
    if precision == "float32":
        return vectors
    if precision in BITS:
        packed: NDArray[np.uint8] = np.packbits(vectors > 0, axis=-1)
        return packed if precision == "ubinary" else (packed.astype(np.int16) - 128).astype(np.int8)
    assert ranges is not None
    low = ranges[0]
    step = (ranges[1] - low) / STEPS
    codes: NDArray[np.float32] = np.clip(np.floor((vectors - low) / np.where(step == 0, 1, step)), 0, STEPS)
    return codes.astype(np.uint8) if precision == "uint8" else (codes - 128).astype(np.int8)


def signs(packed: NDArray[Any], dimensions: int) -> NDArray[np.float32]:
    """Returns the -1 and 1 [n, dimensions] of the bits of "binary" (int8) or "ubinary" (uint8)."""
    data = packed if packed.dtype == np.uint8 else (packed.astype(np.int16) + 128).astype(np.uint8)
    return np.unpackbits(data, axis=-1, count=dimensions).astype(np.float32) * 2 - 1
