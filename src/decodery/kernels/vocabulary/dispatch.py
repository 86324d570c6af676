"""Runs the kernels over the vocabulary: the operations of decoding on rows of logits.

Logits are float32 `[rows, vocab]`. A row's result never depends on the other rows. On a CPU the compiled
kernels run where they are built; everywhere else torch does the work.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.kernels.native.library import available
from decodery.kernels.vocabulary import native, reference
from decodery.kernels.vocabulary.choices import ChoiceArgs, ChoiceDescription, FusedSamplingArgs


def _for(tensor: Tensor) -> ModuleType:
    return native if tensor.device.type == "cpu" and available() else reference


def compiled(logits: Tensor) -> bool:
    """True if the compiled kernels work on these logits, as `choose` requires."""
    return _for(logits) is native


def choose(
    logits: Tensor, args: Sequence[FusedSamplingArgs], borders: array[float] | None = None
) -> list[int]:
    """Returns the token of each row chosen with its `args`, -1 where no token is possible.

    One call does the work of one kernel for each stage, with the same tokens. There is no torch form:
    `compiled` must be True. The logits are modified during the call and restored at its end. `borders`,
    float32 of `BORDERS` for each row, is filled with the least logit, after temperature, that each truncation
    left; -inf where there was none.
    """
    return native.choose(logits, args, borders)


def described(
    logits: Tensor, choices: Sequence[ChoiceArgs], stages: Sequence[Tensor] = ()
) -> list[ChoiceDescription]:
    """Returns what each choice by these rows of logits considered, with sums in float64.

    `stages` are the tensors `[any, vocab]` that the choices' own `stages` index. Each choice must have a
    `shown` from 1 to vocab. A stage that leaves no token gives NaN as probabilities. `compiled` must be True
    for a choice with `sampling`. Tokens of equal logits may come in any order.
    """
    found: list[ChoiceDescription] = _for(logits).described(logits, choices, stages)
    return found


def gumbel_noise(keys: Tensor, tokens: Tensor) -> Tensor:
    """Returns standard Gumbel noise as a pure function of key and token.

    `keys` is int32 `[n, 2]`, `tokens` int32 `[n]`; the result is float32 `[n]`. A counter-based hash gives a
    uniform random number u of 32 bits, and -log(-log(1 - u)) is the noise (Gumbel 1954). Adding it to
    log-probabilities and taking the maximum is the "Gumbel-max" trick (Maddison et al. 2014).
    """
    noise: Tensor = _for(keys).gumbel_noise(keys, tokens)
    return noise


def draw(logits: Tensor, keys: Sequence[tuple[int, int]]) -> list[int]:
    """Returns for each row the token with the largest sum of logit and noise, among those above -inf.

    `keys[i]` is the key of row i's noise. A row without any such token, or with NaN, gives -1.
    """
    tokens: list[int] = _for(logits).draw(logits, keys)
    return tokens


def largest(logits: Tensor, words: NDArray[np.int32] | None = None) -> list[int]:
    """Returns the index of each row's largest logit, the first of equal ones.

    A row gives -1 if it holds NaN or nothing above -inf. With `words`, the result is that after
    `keep_marked`, but the logits are not modified.
    """
    places: list[int] = _for(logits).largest(logits, words)
    return places


def leaders(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the `count` largest values of each row in descending order, and their indices; count <= vocab.

    The values are float32 and the indices int64, both `[rows, count]`. Which of several equal values come
    last is not specified, but depends on the row alone.
    """
    found: tuple[Tensor, Tensor] = _for(logits).leaders(logits, count)
    return found


def leading_logprobs(logits: Tensor, count: int) -> tuple[list[list[float]], list[list[int]]]:
    """Returns for each row the `count` largest log-probabilities in descending order, and their indices.

    These are the `leaders` of `log_softmax`, bit for bit.
    """
    found: tuple[list[list[float]], list[list[int]]] = _for(logits).leading_logprobs(logits, count)
    return found


def maxima(logits: Tensor) -> Tensor:
    """Returns each row's largest logit: `[rows, 1]`."""
    return leaders(logits, 1)[0]


def kth_largest(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """Returns the `counts[i]`-th largest logit of row i: `[rows, 1]`."""
    top, _ = leaders(logits, max(counts))
    return top.gather(-1, torch.tensor(counts, device=logits.device)[:, None] - 1)


def log_softmax(logits: Tensor) -> Tensor:
    """Returns the rows' log-probabilities in a new tensor."""
    logprobs: Tensor = _for(logits).log_softmax(logits)
    return logprobs


def log_normalizers(logits: Tensor) -> list[float]:
    """Returns for each row the logarithm of the sum of its exponentials.

    A logit minus this number is its log-probability.
    """
    norms: list[float] = _for(logits).log_normalizers(logits)
    return norms


def entropy(logprobs: Tensor) -> Tensor:
    """Returns the entropy in nats of each row of log-probabilities: `[rows, 1]`."""
    found: Tensor = _for(logprobs).entropy(logprobs)
    return found


def count_above(logits: Tensor, least: Sequence[float]) -> list[int]:
    """Counts the logits of each row that are above its `least`."""
    counts: list[int] = _for(logits).count_above(logits, least)
    return counts


def nucleus_border(scores: Tensor, logprobs: Tensor, mass: Tensor) -> Tensor:
    """Returns for each row the lowest score in the nucleus: `[rows, 1]`.

    The nucleus is the smallest set of tokens, taken by descending score, whose probability reaches `mass`.
    `scores` and `logprobs` are `[rows, vocab]` (-inf allowed), `mass` is float32 `[rows]`.
    """
    border: Tensor = _for(scores).nucleus_border(scores, logprobs, mass)
    return border


def cut_below(logits: Tensor, least: Tensor) -> None:
    """Sets logits below their row's `least`, float32 `[rows, 1]`, to -inf, in place; NaN is kept."""
    _for(logits).cut_below(logits, least)


def cut_where_below(logits: Tensor, scores: Tensor, least: Tensor) -> None:
    """Sets logits whose score `[rows, vocab]` is below their row's `least` `[rows, 1]` to -inf, in place."""
    _for(logits).cut_where_below(logits, scores, least)


def keep_marked(logits: Tensor, words: NDArray[np.int32]) -> None:
    """Sets logits whose bit in `words` is 0 to -inf, in place; NaN is kept.

    `words` is contiguous, `[rows, vocab / 32 or more]`.
    """
    _for(logits).keep_marked(logits, words)


def keep_only(logits: Tensor, values: Tensor, tokens: Tensor) -> None:
    """Sets all logits to -inf except those of `tokens`, which become `values`, in place.

    Both are `[rows, n]`, the tokens int64.
    """
    _for(logits).keep_only(logits, values, tokens)


def divide(logits: Tensor, divisors: Sequence[float]) -> None:
    """Divides each row by its divisor, in place."""
    _for(logits).divide(logits, divisors)


def copied(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """Returns these rows in a new tensor."""
    copy = torch.empty(len(rows), logits.shape[1], device=logits.device)
    copy_rows(logits, rows, copy, range(len(rows)))
    return copy


def copy_rows(source: Tensor, rows: Sequence[int], target: Tensor, places: Sequence[int]) -> None:
    """Copies these rows of `source` to the rows `places` of `target` `[..., vocab]`, in place."""
    _for(source).copy_rows(source, rows, target, places)


def penalise_repetition(
    logits: Tensor, seen: Sequence[NDArray[np.int64]], penalties: Sequence[float]
) -> None:
    """Applies a row's repetition penalty once to each token that it has seen, in place.

    A positive logit is divided by the penalty, a negative one is multiplied by it.
    """
    _for(logits).penalise_repetition(logits, seen, penalties)


def penalise_frequency(
    logits: Tensor,
    seen: Sequence[NDArray[np.int64]],
    presence: Sequence[float],
    frequency: Sequence[float],
) -> None:
    """Subtracts the penalties for presence and frequency from the logits of the tokens that a row has seen,
    in place.

    A token's logit loses the row's presence penalty, and its frequency penalty times the token's count.
    """
    _for(logits).penalise_frequency(logits, seen, presence, frequency)
