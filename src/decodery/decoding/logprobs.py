"""Computes log-probabilities of chosen tokens under the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.chosen import TokenLogprobs
from decodery.kernels.vocabulary.dispatch import copied, count_above, leaders, log_normalizers


def token_logprobs(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenLogprobs]:
    """Returns each row's token with its log-probability, its rank from 1 and the likeliest tokens.

    `counts[i]` of the likeliest are returned for row i. `logits` is float32 `[rows, vocab]`, unprocessed.
    Rows do not influence each other.
    """
    norms = log_normalizers(logits)
    chosen = logits.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])[:, 0].tolist()
    above = count_above(logits, chosen)
    likeliest: list[tuple[tuple[int, float], ...]] = [()] * len(tokens)
    # A call for each count, because the order of equal values depends on how many are asked for.
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
    """Returns `token_logprobs` at these positions of a step's unprocessed logits `[positions, vocab]`."""
    return token_logprobs(copied(logits, positions), tokens, counts)
