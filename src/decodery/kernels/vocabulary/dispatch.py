"""Kernels over the vocabulary: what decoding does with rows of logits.

Logits are float32 `[rows, vocab]`. A row's result never depends on the other rows. On a CPU the compiled
kernels run where they are built, and otherwise torch.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.kernels.native.library import available
from decodery.kernels.vocabulary import native, reference


def _for(tensor: Tensor) -> ModuleType:
    return native if tensor.device.type == "cpu" and available() else reference


class FusedSamplingArgs(NamedTuple):
    """What leads from a row's logits to its token.

    The repetition penalty is on the row's tokens from the place `seen` on, presence and frequency penalty on
    those from `generated` on. Temperature 0 is for the likeliest token, and what follows means nothing then.
    `top_k` 0 and `top_p` 1 cut nothing, nor does `min_p`, the logarithm of the share, at -inf. `width` of the
    likeliest tokens are looked at first, more than top-k; 0: all. `key` keys the noise.
    """

    tokens: array[int]
    seen: int
    generated: int
    repetition: float
    presence: float
    frequency: float
    temperature: float
    top_p: float
    min_p: float
    top_k: int
    width: int
    key: tuple[int, int]


def compiled(logits: Tensor) -> bool:
    """Whether the compiled kernels work on these logits, and `choose` with them."""
    return _for(logits) is native


def choose(logits: Tensor, ways: Sequence[FusedSamplingArgs]) -> list[int]:
    """The token that each row's way leads to, -1 where none is possible: in one call what else takes a kernel
    for each stage, with the same tokens.

    There is no torch form: `compiled` must hold. The logits are as before afterwards.
    """
    return native.choose(logits, ways)


def gumbel_noise(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise as a pure function of key and token.

    `keys` is int32 `[n, 2]`, `tokens` int32 `[n]`; the result is float32 `[n]`. A counter-based hash gives 32
    random bits u, and -log(-log(1 - u)) is the noise (Gumbel 1954; the trick of adding it to
    log-probabilities is "Gumbel-max", Maddison et al. 2014).
    """
    noise: Tensor = _for(keys).gumbel_noise(keys, tokens)
    return noise


def draw(logits: Tensor, keys: Sequence[tuple[int, int]]) -> list[int]:
    """For each row the token of the largest sum of logit and noise, among those above -inf.

    `keys[i]` keys the noise of row i. A row without any such token, or with NaN, gives -1.
    """
    tokens: list[int] = _for(logits).draw(logits, keys)
    return tokens


def largest(logits: Tensor, words: NDArray[np.int32] | None = None) -> list[int]:
    """The place of each row's largest logit, the first of equal ones; -1 where nothing is above -inf or
    something is NaN.

    With `words`, as after `keep_marked`, but the logits stay.
    """
    places: list[int] = _for(logits).largest(logits, words)
    return places


def leaders(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest values of each row in descending order, and their places; count <= vocab.

    Gives float32 and int64 `[rows, count]`. Which of equal values are last in is not specified, but depends
    on the row alone.
    """
    found: tuple[Tensor, Tensor] = _for(logits).leaders(logits, count)
    return found


def leading_logprobs(logits: Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    """For each row the `count` largest log-probabilities in descending order, and their places.

    These are the `leaders` of `log_softmax`, bit for bit.
    """
    found: tuple[list[list[float]], list[list[int]]] = _for(logits).leading_logprobs(logits, count)
    return found


def maxima(logits: Tensor) -> Tensor:
    """Each row's largest logit: `[rows, 1]`."""
    return leaders(logits, 1)[0]


def kth_largest(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """The `counts[i]`-th largest logit of row i: `[rows, 1]`."""
    top, _ = leaders(logits, max(counts))
    return top.gather(-1, torch.tensor(counts, device=logits.device)[:, None] - 1)


def log_softmax(logits: Tensor) -> Tensor:
    """The rows' log-probabilities, in a new tensor."""
    logprobs: Tensor = _for(logits).log_softmax(logits)
    return logprobs


def log_normalizers(logits: Tensor) -> list[float]:
    """For each row the logarithm of the sum of its exponentials: what a logit is above its
    log-probability."""
    norms: list[float] = _for(logits).log_normalizers(logits)
    return norms


def entropy(logprobs: Tensor) -> Tensor:
    """The entropy in nats of each row of log-probabilities: `[rows, 1]`."""
    found: Tensor = _for(logprobs).entropy(logprobs)
    return found


def count_above(logits: Tensor, least: Sequence[float]) -> list[int]:
    """How many logits of each row are above its `least`."""
    counts: list[int] = _for(logits).count_above(logits, least)
    return counts


def nucleus_border(scores: Tensor, logprobs: Tensor, mass: Tensor) -> Tensor:
    """The score of the last of the fewest tokens, taken by descending score, whose probability reaches
    `mass`.

    `scores` and `logprobs` are `[rows, vocab]` (-inf allowed), `mass` float32 `[rows]`; the result is
    `[rows, 1]`.
    """
    border: Tensor = _for(scores).nucleus_border(scores, logprobs, mass)
    return border


def cut_below(logits: Tensor, least: Tensor) -> None:
    """Set what is below its row's `least`, float32 `[rows, 1]`, to -inf, in place; NaN stays."""
    _for(logits).cut_below(logits, least)


def cut_where_below(logits: Tensor, scores: Tensor, least: Tensor) -> None:
    """Set logits whose score `[rows, vocab]` is below their row's `least` `[rows, 1]` to -inf, in place."""
    _for(logits).cut_where_below(logits, scores, least)


def keep_marked(logits: Tensor, words: NDArray[np.int32]) -> None:
    """Set what has no bit in `words` `[rows, vocab / 32 or more]`, in one piece, to -inf, in place; NaN
    stays."""
    _for(logits).keep_marked(logits, words)


def keep_only(logits: Tensor, values: Tensor, tokens: Tensor) -> None:
    """Set all to -inf but for the `values` of `tokens`, in place; both `[rows, n]`, the tokens int64."""
    _for(logits).keep_only(logits, values, tokens)


def divide(logits: Tensor, divisors: Sequence[float]) -> None:
    """Divide each row by its divisor, in place."""
    _for(logits).divide(logits, divisors)


def copied(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """These rows in a new tensor."""
    copy = torch.empty(len(rows), logits.shape[1], device=logits.device)
    copy_rows(logits, rows, copy, range(len(rows)))
    return copy


def copy_rows(source: Tensor, rows: Sequence[int], target: Tensor, places: Sequence[int]) -> None:
    """Copy these rows of one tensor to these places of another `[..., vocab]`, in place."""
    _for(source).copy_rows(source, rows, target, places)


def penalise_repetition(
    logits: Tensor, seen: Sequence[NDArray[np.int64]], penalties: Sequence[float]
) -> None:
    """Divide the logit of each token that a row has seen by the row's penalty, or multiply a negative one,
    once, in place."""
    _for(logits).penalise_repetition(logits, seen, penalties)


def penalise_frequency(
    logits: Tensor,
    seen: Sequence[NDArray[np.int64]],
    presence: Sequence[float],
    frequency: Sequence[float],
) -> None:
    """Subtract from the logit of each token that a row has seen its presence penalty and its frequency
    penalty times the token's count, in place."""
    _for(logits).penalise_frequency(logits, seen, presence, frequency)
