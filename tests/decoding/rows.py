"""Makes rows and scores for tests, without an engine."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from decodery.decoding.request.params import GenerationParams
from decodery.decoding.rows import Row, Run, Scores


def make_row(
    prompt: Sequence[int] = (0,),
    generated: Sequence[int] = (),
    *,
    end_ids: Sequence[int] = (),
    seed: int = 0,
    **params: Any,
) -> Row:
    """Returns a row that has generated these tokens after this prompt."""
    parameters = GenerationParams(**params)
    return Row(
        request=0,
        params=parameters,
        seed=seed,
        streams=tuple(range(parameters.streams)),
        tokens=array("q", [*prompt, *generated]),
        prompt_length=len(prompt),
        limit=len(prompt) + (parameters.max_tokens or 10**6),
        end_ids=frozenset(end_ids),
    )


def make_scores(logits: Tensor) -> Scores:
    """Returns the scores of rows that ran nothing beyond their last known token: one position each."""
    # A copy, because a judge may overwrite the logits.
    return Scores(logits.clone(), [(Run((), i),) for i in range(len(logits))])
