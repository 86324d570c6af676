"""Diverse beam search: groups of beams that are penalised for equal tokens (Vijayakumar et al. 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from decodery.decoding.strategies.beams.hypotheses import Hypotheses


def tokens_of_stopped(group: Hypotheses, end_ids: frozenset[int]) -> list[int]:
    """Returns the tokens that a group which has stopped counts as taking at a later step.

    Each of its sequences counts as repeating the end token that it ended with.
    """
    return [h.tokens[-1] for h in group.found if h.tokens[-1] in end_ids]


def penalise_taken(logprobs: Tensor, taken: Iterable[int], penalty: float) -> None:
    """Lowers the log-probabilities of tokens that earlier groups took at this step (Hamming diversity,
    section 3).

    `logprobs`, float32 `[beams, vocab]`, is changed in place: a token loses `penalty` for each time that it
    is in `taken`.
    """
    counts = Counter(taken)
    if counts and penalty:
        tokens: Sequence[int] = list(counts)
        logprobs[:, tokens] -= torch.tensor([penalty * counts[t] for t in tokens], device=logprobs.device)
