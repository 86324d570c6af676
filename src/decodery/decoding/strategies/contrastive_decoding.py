"""Contrastive decoding: prefers tokens that a weaker model, the amateur, finds unlikely.

Both models have the same vocabulary.

Li et al., Contrastive Decoding: Open-ended Text Generation as Optimization (2022), in the form of O'Brien and
Lewis, Contrastive Decoding Improves Reasoning in Large Language Models (2023).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.processors.guidance import guided
from decodery.decoding.processors.pipeline import process
from decodery.decoding.request.params import GenerationParams
from decodery.decoding.request.strategy_params import ContrastiveDecoding
from decodery.decoding.rows import Needs, Row, Scores
from decodery.decoding.strategies.combining import guidance_at, logprobs_of, unguided
from decodery.decoding.strategies.sampling import SamplingMethod
from decodery.decoding.trace import Combined


class ContrastiveDecodingMethod(SamplingMethod):
    """Samples from the contrast of two models; drafts are verified as in plain sampling."""

    def needs(self, params: GenerationParams) -> Needs:
        """Asks for the amateur's logits."""
        return Needs(amateur=True)

    def logits(self, scores: Scores, positions: Sequence[int], rows: Sequence[Row]) -> Tensor:
        """Returns the contrasted logits of plausible tokens; guidance is applied after the contrast."""
        assert scores.amateur is not None
        index = torch.tensor(positions, device=scores.logits.device)
        expert, amateur = scores.logits[index], scores.amateur[index]
        strategies = [_strategy(row) for row in rows]
        beta = expert.new_tensor([[s.beta] for s in strategies])
        # Logits serve in place of the paper's log-probabilities: they differ by a constant per position.
        contrast = (1 + beta) * expert - beta * amateur
        return among_plausible(contrast, [s.alpha for s in strategies], scores, positions, rows)

    def combined(
        self, scores: Scores, position: int, row: Row, tokens: Sequence[int]
    ) -> tuple[Combined, ...]:
        """Returns the log-probabilities of the model and of its amateur, and what guidance combined."""
        assert scores.amateur is not None
        own, other = (logprobs_of(part[position], tokens) for part in (scores.logits, scores.amateur))
        contrast = self.logits(scores, [position], [unguided(row)])[0] if row.params.guided else None
        return (
            Combined("contrastive decoding", own, other),
            *guidance_at(scores, position, row, tokens, contrast),
        )


def _strategy(row: Row) -> ContrastiveDecoding:
    assert isinstance(row.params.strategy, ContrastiveDecoding)
    return row.params.strategy


def among_plausible(
    contrast: Tensor,
    shares: Sequence[float],
    scores: Scores,
    positions: Sequence[int],
    rows: Sequence[Row],
) -> Tensor:
    """Returns a contrast `[positions, vocab]` with implausible tokens at -inf, after guidance.

    A token is plausible if the model's probability of it is at least `shares[i]` times that of the model's
    likeliest token (the adaptive plausibility constraint of Li et al. 2022). Where the processors ban all
    plausible tokens, as a grammar may, plausibility is judged among the tokens that they leave.
    """
    expert = scores.logits[torch.tensor(positions, device=scores.logits.device)]
    below = expert.new_tensor([[math.log(share)] for share in shares])
    implausible = expert < expert.amax(-1, keepdim=True) + below
    result = guided(scores, positions, rows, contrast.masked_fill(implausible, -torch.inf))
    has_token = (process(result, rows) > -torch.inf).any(-1).tolist()
    banned = [i for i, possible in enumerate(has_token) if not possible]
    if banned:
        places, some = [positions[i] for i in banned], [rows[i] for i in banned]
        left = process(guided(scores, places, some), some) > -torch.inf
        likeliest = expert[banned].masked_fill(~left, -torch.inf).amax(-1, keepdim=True)
        implausible = expert[banned] < likeliest + below[banned]
        result[banned] = guided(scores, places, some, contrast[banned].masked_fill(implausible, -torch.inf))
    return result
