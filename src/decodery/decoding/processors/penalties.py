"""Makes tokens likelier or less likely: penalties, biases, temperature.

All functions take contiguous float32 logits `[rows, vocab]`, which they change in place, and the rows that
the logits belong to, in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decodery.decoding.request.checks import COLDEST
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Row
from decodery.errors import CallbackError
from decodery.kernels.vocabulary.dispatch import (
    copied,
    divide,
    entropy,
    log_softmax,
    penalise_frequency,
    penalise_repetition,
)


def tokens_of(row: Row) -> NDArray[np.int64]:
    """Returns the row's tokens as an array that shares their memory; it must only be read."""
    return np.frombuffer(row.tokens, dtype=np.int64)


def sequence_bias(logits: Tensor, rows: Sequence[Row]) -> None:
    """Adds each phrase's bias to the logit of its last token where the row ends with its other tokens."""
    for logit, row in zip(logits, rows, strict=True):
        found = [(p[-1], bias) for p, bias in phrase_biases(row.params) if completes(p, row)]
        if found:
            tokens, biases = zip(*found, strict=True)
            # `index_add_`, because several phrases may end with the same token.
            logit.index_add_(0, _index(logit, tokens), _values(logit, biases))


def phrase_biases(params: GenerationParams) -> Sequence[tuple[tuple[int, ...], float]]:
    """Returns the phrases of `sequence_bias`, which are token ids by now, with their biases."""
    return params.sequence_bias  # type: ignore[return-value]


def completes(phrase: Sequence[int], row: Row) -> bool:
    """True if the phrase's last token would complete it: the row ends with the tokens before it."""
    before = len(phrase) - 1
    return before == 0 or (
        before <= len(row.tokens) and row.tokens[-before:].tolist() == list(phrase[:before])
    )


def encoder_repetition_penalty(logits: Tensor, rows: Sequence[Row]) -> None:
    """Makes every token of the prompt likelier: the repetition penalty with the reciprocal."""
    seen = [tokens_of(row)[: row.prompt_length] for row in rows]
    penalise_repetition(logits, seen, [1 / row.params.encoder_repetition_penalty for row in rows])


def repetition_penalty(logits: Tensor, rows: Sequence[Row]) -> None:
    """Makes every token seen less likely: divides a positive logit, multiplies a negative one.

    CTRL: Keskar et al. 2019, section 4.1.
    """
    seen = [tokens_of(row)[seen_from(row) :] for row in rows]
    penalise_repetition(logits, seen, [row.params.repetition_penalty for row in rows])


def seen_from(row: Row) -> int:
    """Returns the position from which on the row's tokens count for the repetition penalty."""
    first = 0 if row.params.penalize_prompt else row.prompt_length
    return max(first, _range_start(row))


def generated_from(row: Row) -> int:
    """Returns the position from which on tokens count for the presence and frequency penalties."""
    return max(row.prompt_length, _range_start(row))


def _range_start(row: Row) -> int:
    return len(row.tokens) - row.params.penalty_range if row.params.penalty_range else 0


def presence_and_frequency_penalty(logits: Tensor, rows: Sequence[Row]) -> None:
    """Subtracts the presence and frequency penalties from the logits of generated tokens.

    A token's presence penalty counts once, its frequency penalty as often as the token was generated (as the
    OpenAI API defines them).
    """
    penalise_frequency(
        logits,
        [tokens_of(row)[generated_from(row) :] for row in rows],
        [row.params.presence_penalty for row in rows],
        [row.params.frequency_penalty for row in rows],
    )


def exponential_decay(logits: Tensor, rows: Sequence[Row]) -> None:
    """Raises an end token's logit x by |x| (factor^n - 1), n tokens after the start."""
    for logit, row in zip(logits, rows, strict=True):
        start, factor = row.params.exponential_decay_length_penalty or (0, 1.0)
        ends = _index(logit, sorted(row.end_ids))
        values = logit[ends]
        # Bounded, because logits are float32.
        growth = math.exp(min((row.generated - start) * math.log(factor), 80.0)) - 1
        logit[ends] = torch.where(values.isinf(), values, values + values.abs() * growth)


def logit_bias(logits: Tensor, rows: Sequence[Row]) -> None:
    """Adds each row's biases to its tokens' logits."""
    for logit, row in zip(logits, rows, strict=True):
        tokens, biases = zip(*row.params.logit_bias, strict=True)
        logit[_index(logit, tokens)] += _values(logit, biases)


def custom(logits: Tensor, rows: Sequence[Row]) -> None:
    """Applies each row's own functions in their order.

    Raises `CallbackError` if one fails or returns anything but numbers `[vocab]`.
    """
    for logit, row in zip(logits, rows, strict=True):
        for function in row.params.logits_processors:
            name = getattr(function, "__name__", type(function).__name__)
            try:
                result = function(row.tokens.tolist(), logit)
            except Exception as error:
                fault = f"logits_processors: {name} failed: {error!r}"
                raise CallbackError(fault, row.request) from error
            fault = _fault(result, logit)
            if fault:
                raise CallbackError(f"logits_processors: {name} returned {fault}", row.request)
            logit.copy_(result)


def _fault(result: object, logit: Tensor) -> str:
    """Returns what is wrong with the logits that a function returned, or an empty string."""
    if not isinstance(result, Tensor):
        return f"{type(result).__name__}; return a tensor of logits"
    if result.shape != logit.shape or not result.is_floating_point():
        shape = list(logit.shape)
        return f"{result.dtype} {list(result.shape)}; return floating-point logits of shape {shape}"
    if bool(result.isnan().any()):
        return "logits that are not numbers (NaN)"
    return ""


def temperature(logits: Tensor, rows: Sequence[Row]) -> None:
    """Divides each row's logits by its temperature, which is above 0.

    With a range r (dynamic temperature) the divisor grows with the entropy from temperature - r to
    temperature + r: the entropy's share of the largest possible entropy, to the power of the exponent,
    interpolates between them.
    """
    divisors = [row.params.temperature for row in rows]
    moving = [i for i, row in enumerate(rows) if row.params.dynatemp_range > 0]
    if moving:
        found = _dynamic(copied(logits, moving), [rows[i] for i in moving])[:, 0].tolist()
        for i, divisor in zip(moving, found, strict=True):
            divisors[i] = divisor
    divide(logits, divisors)


def _dynamic(logits: Tensor, rows: Sequence[Row]) -> Tensor:
    possible = (logits > -torch.inf).sum(-1, keepdim=True)
    share = entropy(log_softmax(logits)) / possible.log()
    settings = [
        (row.params.temperature, row.params.dynatemp_range, row.params.dynatemp_exponent) for row in rows
    ]
    bounds = [(max(0.0, t - r), t + r, power) for t, r, power in settings]
    low, high, power = torch.tensor(bounds, dtype=logits.dtype, device=logits.device).unbind(-1)
    warm = low[:, None] + (high - low)[:, None] * share.clamp(0, 1) ** power[:, None]
    # With a single possible token the share is 0 / 0, and no temperature changes anything.
    return torch.where(possible > 1, warm, 1.0).clamp_(min=COLDEST)


def renormalize(logits: Tensor, rows: Sequence[Row]) -> None:
    """Replaces the logits by log-probabilities."""
    logits.copy_(log_softmax(logits))


def _index(logit: Tensor, tokens: Sequence[int]) -> Tensor:
    return torch.tensor(tokens, dtype=torch.int64, device=logit.device)


def _values(logit: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=logit.dtype, device=logit.device)
