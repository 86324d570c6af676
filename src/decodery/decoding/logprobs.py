"""Log-probabilities of chosen tokens under the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.rows import TokenLogprobs


def token_logprobs(logits: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[TokenLogprobs]:
    """For each row, its token's log-probability, its rank from 1, and the `counts[i]` likeliest tokens.

    `logits` is float32 `[rows, vocab]`, unprocessed. Rows do not influence each other.
    """
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None])
    ranks = ((logprobs > chosen).sum(-1) + 1).tolist()
    likeliest: list[tuple[tuple[int, float], ...]] = [()] * len(tokens)
    # Each count by itself: which of equal values come first depends on how many are asked for.
    for count in set(counts):
        rows = [i for i, c in enumerate(counts) if c == count]
        top = logprobs[rows].topk(count, dim=-1)
        for i, ids, values in zip(rows, top.indices.tolist(), top.values.tolist(), strict=True):
            likeliest[i] = tuple(zip(ids, values, strict=True))
    return [
        TokenLogprobs(token, logprob, rank, best)
        for token, logprob, rank, best in zip(tokens, chosen[:, 0].tolist(), ranks, likeliest, strict=True)
    ]


def logprobs_at(
    logits: Tensor, positions: Sequence[int], tokens: Sequence[int], counts: Sequence[int]
) -> list[TokenLogprobs]:
    """`token_logprobs` of these positions of a step's unprocessed logits `[positions, vocab]`."""
    return token_logprobs(logits[torch.tensor(positions, device=logits.device)], tokens, counts)
