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
    top = logprobs.topk(max(counts), dim=-1)
    likeliest = [
        tuple(zip(ids[:count], values[:count], strict=True))
        for ids, values, count in zip(top.indices.tolist(), top.values.tolist(), counts, strict=True)
    ]
    return [
        TokenLogprobs(token, logprob, rank, best)
        for token, logprob, rank, best in zip(tokens, chosen[:, 0].tolist(), ranks, likeliest, strict=True)
    ]
