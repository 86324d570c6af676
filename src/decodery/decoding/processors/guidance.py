"""Classifier-free guidance: lead a text away from what follows another prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from decodery.decoding.rows import Row, Scores
from decodery.kernels.vocabulary.dispatch import copied, copy_rows, log_softmax


def guided(
    scores: Scores, positions: Sequence[int], rows: Sequence[Row], logits: Tensor | None = None
) -> Tensor:
    """The logits `[positions, vocab]` at these positions of `scores`, led away from those of companions.

    `rows[i]` is the row at `positions[i]`. `logits`, where they are given, stand in for the scores' own at
    these positions. Of a guided row it is `u + scale (c - u)` with log-probabilities c of the row and u of
    its companion (Sanchez et al. 2023, section 3.1). The scores are left as they are.
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
