"""Measures how likely texts are to a model: perplexity, and bits per byte."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import replace

from decodery.metrics.arguments import count, listed, numbers, refuse, same_length
from decodery.metrics.score import Score, mean


def perplexity(
    logprobs: Sequence[float],
    lengths: Sequence[int],
    *,
    unit: str = "token",
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns exp of minus the sum of all log-probabilities over the sum of all lengths.

    `logprobs` has for each text the sum of its natural log-probabilities, and `lengths` its number of tokens,
    or of what `unit` names. Each token counts once: it is not the mean of the texts' perplexities. A text of
    length 0 is undefined. A log-probability of minus infinity gives infinity, without an error. The error is
    that of the ratio, by the delta method.
    Raises `ParameterError` for no texts, other lengths, and log-probabilities that are NaN or above 0.
    """
    sizes = [count(f"lengths[{index}]", length) for index, length in enumerate(listed("lengths", lengths))]
    rate = _per_unit(logprobs, "lengths", sizes, groups)
    if rate.value is None:
        return replace(rate, unit=f"perplexity per {unit}")
    try:
        value = math.exp(rate.value)
    except OverflowError:
        value = math.inf
    error = None if rate.error is None or math.isinf(value) else value * rate.error
    return replace(rate, value=value, error=error, unit=f"perplexity per {unit}")


def bits_per_byte(
    logprobs: Sequence[float], sources: Sequence[str | int], *, groups: Sequence[Hashable] | None = None
) -> Score:
    """Returns minus the sum of all log-probabilities in bits, over the bytes of the texts.

    `logprobs` has for each text the sum of its natural log-probabilities, and `sources` the original text, or
    its number of bytes in UTF-8. So models with different tokenizers can be compared. An empty text is
    undefined. The error is that of the ratio.
    Raises `ParameterError` as `perplexity` does.
    """
    sizes = [
        len(source.encode("utf-8", "surrogatepass"))
        if isinstance(source, str)
        else count(f"sources[{i}]", source)
        for i, source in enumerate(listed("sources", sources))
    ]
    rate = _per_unit(logprobs, "sources", sizes, groups)
    if rate.value is None:
        return replace(rate, unit="bits per byte")
    error = None if rate.error is None else rate.error / math.log(2)
    return replace(rate, value=rate.value / math.log(2), error=error, unit="bits per byte")


def _per_unit(
    logprobs: Sequence[float], name: str, lengths: list[int], groups: Sequence[Hashable] | None
) -> Score:
    """Returns the negative log-probability in nats for each unit of length, infinite where one is."""
    sums = numbers("logprobs", logprobs, infinite=True)
    sizes: dict[str, Sequence[float]] = {"logprobs": sums, name: lengths}
    same_length(**sizes)
    for index, (value, length) in enumerate(zip(sums, lengths, strict=True)):
        # Rounding may put a sum of certain tokens a little above 0.
        if value > 1e-4 * max(length, 1):
            refuse(f"logprobs[{index}]", f"is above 0: {value}; give log-probabilities, not losses")
    read = [index for index, length in enumerate(lengths) if length]
    if any(sums[index] == -math.inf for index in read):
        return Score(math.inf, None, "", len(read), len(lengths) - len(read))
    return mean(
        [-value / length if length else None for value, length in zip(sums, lengths, strict=True)],
        weights=[length or 1 for length in lengths],
        groups=groups,
    )
