"""Applies classifier-free guidance: moves a row's logits away from those after the negative prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.rows import Row, Scores
from decodery.kernels.vocabulary.dispatch import copied, copy_rows, log_softmax


def guided(
    scores: Scores, positions: Sequence[int], rows: Sequence[Row], logits: Tensor | None = None
) -> Tensor:
    """Returns the logits `[positions, vocab]` at these positions of `scores`, with guidance applied.

    `rows[i]` is the row at `positions[i]`. `logits`, if given, replace the scores' own at these positions.
    The logits of a guided row become `u + scale (c - u)` with log-probabilities c of the row and u of its
    companion (Sanchez et al. 2023, section 3.1). The scores are not changed.
    """
    if logits is None:
        whole = list(positions) == list(range(len(scores.logits)))
        logits = scores.logits if whole else copied(scores.logits, positions)
    using = [i for i, row in enumerate(rows) if row.params.guided]
    if not using or scores.companion is None or scores.companion_at is None:
        return logits
    places = [scores.companion_at[positions[i]] for i in using]
    companion = log_softmax(copied(scores.companion, places))
    own = log_softmax(copied(logits, using))
    scale = torch.tensor([[rows[i].params.guidance_scale] for i in using], device=logits.device)
    result = copied(logits, range(len(logits)))
    copy_rows(companion + scale * (own - companion), range(len(using)), result, using)
    return result
