"""The order in which logits are processed. A new processor is one line in the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.decoding import processors, truncation
from decodery.decoding.params import GenerationParams
from decodery.decoding.rows import Row


@dataclass(frozen=True, slots=True)
class Processor:
    """One stage: `apply` changes, in place, the logits of the rows whose parameters `wants` it."""

    name: str
    wants: Callable[[GenerationParams], bool]
    apply: Callable[[Tensor, Sequence[Row]], None]


# Bans and penalties first, on the model's own scale; then temperature; then truncation, from coarse to fine.
# Greedy rows end before temperature: nothing after it changes which token is the likeliest.
PIPELINE = (
    Processor("logit_bias", lambda p: bool(p.logit_bias), processors.logit_bias),
    Processor("min_tokens", lambda p: p.min_tokens > 0, processors.min_tokens),
    Processor("repetition_penalty", lambda p: p.repetition_penalty != 1, processors.repetition_penalty),
    Processor(
        "presence_and_frequency_penalty",
        lambda p: p.presence_penalty != 0 or p.frequency_penalty != 0,
        processors.presence_and_frequency_penalty,
    ),
    Processor("temperature", lambda p: p.temperature not in (0, 1), processors.temperature),
    Processor("top_k", lambda p: p.top_k > 0 and not p.greedy, truncation.top_k),
    Processor("top_p", lambda p: p.top_p < 1 and not p.greedy, truncation.top_p),
    Processor("min_p", lambda p: p.min_p > 0 and not p.greedy, truncation.min_p),
)


def process(logits: Tensor, rows: Sequence[Row], pipeline: Sequence[Processor] = PIPELINE) -> Tensor:
    """The rows' logits after all that their parameters ask for.

    `logits` is float32 `[rows, vocab]` and is left as it is; without any processor it is also the result.
    A row's result does not depend on the others.
    """
    result = logits
    for processor in pipeline:
        using = [i for i, row in enumerate(rows) if processor.wants(row.params)]
        if not using:
            continue
        if result is logits:
            result = logits.clone()
        if len(using) == len(rows):
            processor.apply(result, rows)
        else:
            index = torch.tensor(using, device=logits.device)
            part = result[index]
            processor.apply(part, [rows[i] for i in using])
            result[index] = part
    return result
