"""Processors: each changes logits in place by what its rows' parameters and tokens say.

All take float32 logits `[rows, vocab]` and the rows that they belong to, in the same order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from decodery.decoding.rows import Row


def logit_bias(logits: Tensor, rows: Sequence[Row]) -> None:
    """Add each row's bias to its tokens' logits."""
    for logit, row in zip(logits, rows, strict=True):
        tokens, biases = zip(*row.params.logit_bias, strict=True)
        logit[list(tokens)] += torch.tensor(biases, device=logits.device)


def min_tokens(logits: Tensor, rows: Sequence[Row]) -> None:
    """Ban the end tokens while too few tokens are generated."""
    for logit, row in zip(logits, rows, strict=True):
        if row.generated < row.params.min_tokens and row.end_ids:
            logit[sorted(row.end_ids)] = -torch.inf


def repetition_penalty(logits: Tensor, rows: Sequence[Row]) -> None:
    """Make every token of prompt and text less likely: divide its logit, or multiply a negative one
    (CTRL, Keskar et al. 2019, section 4.1)."""
    for logit, row in zip(logits, rows, strict=True):
        seen = torch.from_numpy(np.unique(row.tokens)).to(logits.device)
        values = logit[seen]
        penalty = row.params.repetition_penalty
        logit[seen] = torch.where(values < 0, values * penalty, values / penalty)


def presence_and_frequency_penalty(logits: Tensor, rows: Sequence[Row]) -> None:
    """Subtract, from each generated token's logit, the presence penalty and its count times the frequency
    penalty (as the OpenAI API defines them)."""
    for logit, row in zip(logits, rows, strict=True):
        if not row.generated:
            continue
        generated = np.frombuffer(row.tokens, dtype=np.int64)[row.prompt_length :]
        seen, counts = np.unique(generated, return_counts=True)
        penalty = row.params.presence_penalty + row.params.frequency_penalty * counts
        logit[torch.from_numpy(seen)] -= torch.from_numpy(penalty).to(logits)


def temperature(logits: Tensor, rows: Sequence[Row]) -> None:
    """Divide each row's logits by its temperature, which is above 0."""
    logits /= torch.tensor([[row.params.temperature] for row in rows], device=logits.device)
