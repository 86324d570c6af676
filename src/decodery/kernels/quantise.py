"""Quantises float matrices to codes of 4 or 8 bits, or to shorter floats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor
from torch.nn.functional import pad

from decodery.kernels.packed_weights import GROUP, Codes, Format

QUANTIZATIONS = ("int4", "int8", "bf16")

# Elements quantised at once: few enough to stay in a core's cache and on the calling thread.
STEP = 1 << 15
# The fractions of its range by which a group's range is extended on both sides, as candidates.
RANGES = (0.0, 0.025, -0.025)


def quantise(matrix: Tensor, form: str, *, threads: int = 1) -> Codes:
    """Returns a float matrix in one of the forms `QUANTIZATIONS` or "float32".

    A group of 32 inputs has one scale, and in int4 also a minimum. A value that is not finite, or too large
    for a scale in float16, makes scales that are not finite. `threads` work in parallel.
    """
    if form == "float32":
        return Codes(Format.FLOAT32, matrix.float())
    if form == "bf16":
        return Codes(Format.BFLOAT16, matrix.bfloat16())
    rows, columns = matrix.shape
    groups = -(-columns // GROUP)
    codes = torch.empty(rows, columns, dtype=torch.uint8)
    scales = torch.empty(rows, groups, dtype=torch.float16)
    minima = torch.empty_like(scales) if form == "int4" else None
    step = max(1, STEP // columns)

    def some(start: int) -> None:
        part = slice(start, start + step)
        values = pad(matrix[part].float(), (0, -columns % GROUP)).view(-1, groups, GROUP)
        if minima is None:
            found, scales[part] = _int8(values)
        else:
            found, scales[part], minima[part] = _int4(values)
        codes[part] = found.flatten(1)[:, :columns]

    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(some, range(0, rows, step)):
            pass
    return Codes(Format.INT8 if minima is None else Format.INT4_MIN, codes, scales, minima)


def codes_of(weight: Tensor | Sequence[Codes]) -> Sequence[Codes]:
    """Returns a matrix as codes; bfloat16 is kept, and other floats become float32."""
    if not isinstance(weight, Tensor):
        return weight
    return [quantise(weight.detach(), "bf16" if weight.dtype == torch.bfloat16 else "float32")]


def _int8(groups: Tensor) -> tuple[Tensor, Tensor]:
    scales = (groups.abs().amax(-1) / 127).to(torch.float16)
    codes = (groups * _inverse(scales.float())[..., None]).round_().clamp_(-127, 127).add_(128)
    return codes, scales


def _int4(groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns codes, scales and minima of groups [..., 32] with a small squared error that weights large
    values more.

    Ranges somewhat narrower or wider than the group's own are tried. For the codes of each, the scale and
    minimum with the least error are computed, as llama.cpp does for its k-quants.
    """
    low, high = groups.aminmax(dim=-1)
    squares = groups * groups
    weights = squares + squares.mean(-1, keepdim=True)
    weighted = weights * groups
    total, sum_x = weights.sum(-1), weighted.sum(-1)
    # A group that is not finite never improves on this start, so its scales are NaN.
    scales, minima = (high - low) * math.nan, low
    least = torch.full_like(low, math.inf)
    for wider in RANGES:
        codes = _codes(groups, (high - low) * ((1 + 2 * wider) / 15), low - wider * (high - low))
        heavy = weights * codes
        sum_c, sum_cc, sum_xc = heavy.sum(-1), (heavy * codes).sum(-1), (weighted * codes).sum(-1)
        spread = total * sum_cc - sum_c * sum_c
        scale = torch.where(spread > 0, (total * sum_xc - sum_c * sum_x) / spread, 0.0).half().float()
        minimum = torch.where(total == 0, 0.0, (sum_x - scale * sum_c) / total).half().float()
        # The squared error, less that of zeros.
        error = scale * (scale * sum_cc - 2 * sum_xc) + minimum * (
            minimum * total - 2 * sum_x + 2 * scale * sum_c
        )
        better = error < least
        scales, minima = torch.where(better, scale, scales), torch.where(better, minimum, minima)
        least = torch.where(better, error, least)
    return _codes(groups, scales, minima), scales.half(), minima.half()


def _codes(groups: Tensor, scales: Tensor, minima: Tensor) -> Tensor:
    return (groups - minima[..., None]).mul_(_inverse(scales)[..., None]).round_().clamp_(0, 15)


def _inverse(scales: Tensor) -> Tensor:
    return torch.where(scales > 0, 1 / scales, 0.0)
