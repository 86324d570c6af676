"""Which tokens may continue which beams: the likeliest of a group's beams, or a draw from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import torch
from torch import Tensor

from decodery.decoding.draw import draw_key, stream_seed
from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import gumbel_noise, leaders, leading_logprobs


@dataclass(frozen=True, slots=True)
class Candidate:
    """Token `token` after beam `beam` of the group: its log-probability, and the whole sequence's sum."""

    beam: int
    token: int
    logprob: float
    total: float


def likeliest(logprobs: Tensor, totals: Sequence[float], count: int) -> list[Candidate]:
    """The `count` candidates of the largest sums, in order; fewer when no more have a probability.

    `logprobs` is float32 `[beams, vocab]`, `totals` the sums of the beams so far. Of equal sums the earlier
    beam's comes first. A beam with NaN has no candidates.
    """
    values, tokens = leaders(logprobs, min(count, logprobs.shape[-1]))
    return _best(values.tolist(), tokens.tolist(), totals, count)


def likeliest_after(logits: Tensor, totals: Sequence[float], count: int) -> list[Candidate]:
    """As `likeliest`, of the log-probabilities of these logits."""
    return _best(*leading_logprobs(logits, min(count, logits.shape[-1])), totals, count)


def _best(
    logprobs: Sequence[Sequence[float]], tokens: Sequence[Sequence[int]], totals: Sequence[float], count: int
) -> list[Candidate]:
    found = [
        (total + value, beam, token, value)
        for beam, total in enumerate(totals)
        for value, token in zip(logprobs[beam], tokens[beam], strict=True)
        if value > -torch.inf
    ]
    # Also from the largest down, equal sums stay in their order.
    found.sort(key=itemgetter(0), reverse=True)
    return [Candidate(beam, token, value, total) for total, beam, token, value in found[:count]]


def drawn(
    logprobs: Tensor, totals: Sequence[float], rows: Sequence[Row], streams: Sequence[int], count: int
) -> list[Candidate]:
    """`count` different candidates drawn from all beams' together, in the order of their sums.

    As `likeliest`, with the beams' rows and the streams that their noise is of. Adding Gumbel noise and
    taking the largest draws without replacement (Kool et al. 2019, section 2.3).
    """
    keys = torch.tensor(
        [
            draw_key(stream_seed(row.seed, stream), len(row.tokens))
            for row, stream in zip(rows, streams, strict=True)
        ],
        dtype=torch.int32,
        device=logprobs.device,
    )
    beams, tokens = torch.nonzero(logprobs > -torch.inf, as_tuple=True)
    # Sums are only compared with each other: near 0 they keep their digits.
    best = max(totals)
    offsets = torch.tensor([total - best for total in totals], device=logprobs.device)
    perturbed = logprobs[beams, tokens] + offsets[beams] + gumbel_noise(keys[beams], tokens.int())
    taken = perturbed.topk(min(count, len(perturbed))).indices
    values = logprobs[beams[taken], tokens[taken]].tolist()
    found = [
        Candidate(beam, token, value, totals[beam] + value)
        for beam, token, value in zip(beams[taken].tolist(), tokens[taken].tolist(), values, strict=True)
    ]
    return sorted(found, key=lambda c: -c.total)
