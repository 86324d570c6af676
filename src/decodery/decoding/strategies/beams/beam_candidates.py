"""Finds the candidates for a group's next beams: the likeliest tokens after its beams, or a draw of them."""

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
    """Holds a token that may follow beam `beam` of the group.

    `logprob` is the token's log-probability, `total` the sum over the whole sequence with it.
    """

    beam: int
    token: int
    logprob: float
    total: float


def likeliest(logprobs: Tensor, totals: Sequence[float], count: int) -> list[Candidate]:
    """Returns the `count` candidates with the largest sums, largest first; fewer if fewer are possible.

    `logprobs` is float32 `[beams, vocab]`; a token at -inf is not possible. `totals` are the sums of the
    beams so far. Of equal sums the earlier beam's comes first. A beam with NaN has no candidates.
    """
    values, tokens = leaders(logprobs, min(count, logprobs.shape[-1]))
    return _best(values.tolist(), tokens.tolist(), totals, count)


def likeliest_after(logits: Tensor, totals: Sequence[float], count: int) -> list[Candidate]:
    """Returns the same as `likeliest`, from logits `[beams, vocab]` in place of log-probabilities."""
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
    # The sort is stable, also with `reverse`: equal sums stay in the order of their beams.
    found.sort(key=itemgetter(0), reverse=True)
    return [Candidate(beam, token, value, total) for total, beam, token, value in found[:count]]


def drawn(
    logprobs: Tensor, totals: Sequence[float], rows: Sequence[Row], streams: Sequence[int], count: int
) -> list[Candidate]:
    """Returns `count` different candidates of all beams together, in the order in which they are drawn.

    `logprobs` and `totals` are as for `likeliest`. The noise of beam i is that of stream `streams[i]` of
    `rows[i]`. Adding Gumbel noise and taking the largest sums draws without replacement (Kool et al. 2019,
    section 2.3).
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
    # Only differences of sums matter. Shifted to near 0 they lose no digits in float32.
    best = max(totals)
    offsets = torch.tensor([total - best for total in totals], device=logprobs.device)
    perturbed = logprobs[beams, tokens] + offsets[beams] + gumbel_noise(keys[beams], tokens.int())
    taken = perturbed.topk(min(count, len(perturbed))).indices
    values = logprobs[beams[taken], tokens[taken]].tolist()
    return [
        Candidate(beam, token, value, totals[beam] + value)
        for beam, token, value in zip(beams[taken].tolist(), tokens[taken].tolist(), values, strict=True)
    ]
