"""Accepts or replaces drafts by rejection sampling, which keeps the distribution of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from decodery.decoding.draw import choose, draw_key_of
from decodery.decoding.request.speculation_params import DRAFTERS
from decodery.decoding.rows import Row

# Salts: acceptance and the replacement of a rejected draft have noise of their own, independent of that of
# plain draws.
_ACCEPTANCE = 0xA24BAED4963EE407
_REPLACEMENT = 0x9FB21C651E98DF25


def rejecting(row: Row) -> bool:
    """True if the row's drafts are accepted by rejection sampling.

    A greedy row's never are, because only its likeliest token is right.
    """
    speculation = row.params.speculate
    rejects = isinstance(speculation, DRAFTERS) and speculation.acceptance == "rejection"
    return rejects and not row.params.greedy


def accept_or_replace(row: Row, processed: Tensor, draft: int, drafted: Tensor | None) -> int:
    """Returns the row's draft x with probability min(1, p(x) / q(x)), else a draw from max(p - q, 0).

    p are the probabilities by the `processed` logits `[vocab]`. q are those by `drafted`, the logits
    `[vocab]` from which x was drawn; None for a draft that was not drawn, where q(x) is 1. The token returned
    is distributed as p (Leviathan et al. 2023, section 2.3; Chen et al. 2023, theorem 1).
    """
    p = processed.double().softmax(-1)
    if drafted is None:
        q = torch.zeros_like(p)
        q[draft] = 1
    else:
        q = drafted.double().softmax(-1)
    if _uniform(row) * q[draft] < p[draft]:
        return draft
    left = (p - q).clamp_(min=0)
    # Nothing is left where p and q differ by rounding only.
    return choose((left if left.any() else p).log().float()[None], [row], [_REPLACEMENT])[0]


def _uniform(row: Row) -> float:
    """Returns a number from [0, 1), of 53 random bits, that decides on the draft of the row's next token."""
    low, high = draw_key_of(row, _ACCEPTANCE)
    return float((((high & 0xFFFFFFFF) << 32) | (low & 0xFFFFFFFF)) >> 11) * 2.0**-53
