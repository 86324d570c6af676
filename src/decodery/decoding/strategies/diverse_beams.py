"""Diverse beam search: groups of beams that keep apart (Vijayakumar et al. 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from decodery.decoding.strategies.hypotheses import Hypotheses


def taken_by_ended(group: Hypotheses, end_ids: frozenset[int]) -> list[int]:
    """The tokens that a group which has stopped counts as taking: each of its sequences repeats the end token
    that it ended with."""
    return [h.tokens[-1] for h in group.found if h.tokens[-1] in end_ids]


def keep_apart(logprobs: Tensor, taken: Iterable[int], penalty: float) -> None:
    """Make what earlier groups have taken at this step less likely, in place: Hamming diversity (section 3).

    `logprobs` is float32 `[beams, vocab]`; each beam that took a token costs it `penalty`.
    """
    counts = Counter(taken)
    if counts and penalty:
        tokens: Sequence[int] = list(counts)
        logprobs[:, tokens] -= torch.tensor([penalty * counts[t] for t in tokens], device=logprobs.device)
