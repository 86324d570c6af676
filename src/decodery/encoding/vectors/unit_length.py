"""Gives vectors the length 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-12
"""The length below which a vector is not made longer."""


def of_unit_length(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Returns vectors [..., width] of the length 1 in the same direction; a vector of zeros stays.

    A vector's bits do not depend on the other vectors.
    """
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact * exact).sum(-1, keepdims=True))
    found: NDArray[np.float64] = exact / np.maximum(lengths, SMALLEST)
    return found
