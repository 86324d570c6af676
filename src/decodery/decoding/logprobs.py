"""Log-probabilities of chosen tokens under the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.rows import TokenLogprobs
from decodery.kernels.vocabulary.dispatch import copied, count_above, leaders, log_normalizers


def token_logprobs(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenLogprobs]:
    """For each row, its token's log-probability, its rank from 1, and the `counts[i]` likeliest tokens.

    `logits` is float32 `[rows, vocab]`, unprocessed. Rows do not influence each other.
    """
    norms = log_normalizers(logits)
    chosen = logits.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    above = count_above(logits, chosen)
    likeliest: list[tuple[tuple[int, float], ...]] = [()] * len(tokens)
    # Each count by itself: which of equal values come first depends on how many are asked for.
    for count in set(counts):
        rows = [i for i, c in enumerate(counts) if c == count]
        if count:
            best, places = leaders(copied(logits, rows), count)
            for i, ids, values in zip(rows, places.tolist(), best.tolist(), strict=True):
                likeliest[i] = tuple((id_, value - norms[i]) for id_, value in zip(ids, values, strict=True))
    return [
        TokenLogprobs(token, value - norm, more + 1, best)
        for token, value, norm, more, best in zip(tokens, chosen, norms, above, likeliest, strict=True)
    ]


def logprobs_at(
    logits: Tensor, positions: Sequence[int], tokens: Sequence[int], counts: Sequence[int]
) -> list[TokenLogprobs]:
    """`token_logprobs` of these positions of a step's unprocessed logits `[positions, vocab]`."""
    return token_logprobs(copied(logits, positions), tokens, counts)
