"""From raw logits to processed ones. A new processor is a line in the table and a place in the default
order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.decoding import processors, truncation
from decodery.decoding.order import DEFAULT_ORDER
from decodery.decoding.params import GenerationParams
from decodery.decoding.rows import Row


@dataclass(frozen=True, slots=True)
class Processor:
    """One stage: `apply` changes, in place, the logits of the rows whose parameters `wants` it."""

    wants: Callable[[GenerationParams], bool]
    apply: Callable[[Tensor, Sequence[Row]], None]


# Greedy rows end before temperature: nothing after it changes which token is the likeliest.
PROCESSORS: dict[str, Processor] = {
    "repetition_penalty": Processor(lambda p: p.repetition_penalty != 1, processors.repetition_penalty),
    "presence_and_frequency_penalty": Processor(
        lambda p: p.presence_penalty != 0 or p.frequency_penalty != 0,
        processors.presence_and_frequency_penalty,
    ),
    "min_tokens": Processor(lambda p: p.min_tokens > 0, processors.min_tokens),
    "logit_bias": Processor(lambda p: bool(p.logit_bias), processors.logit_bias),
    "temperature": Processor(lambda p: p.temperature not in (0, 1), processors.temperature),
    "top_k": Processor(lambda p: p.top_k > 0 and not p.greedy, truncation.top_k),
    "top_p": Processor(lambda p: p.top_p < 1 and not p.greedy, truncation.top_p),
    "min_p": Processor(lambda p: p.min_p > 0 and not p.greedy, truncation.min_p),
}

Record = Callable[[str, Sequence[int], Tensor], None]


def process(logits: Tensor, rows: Sequence[Row], record: Record | None = None) -> Tensor:
    """The rows' logits after all that their parameters ask for.

    `logits` is float32 `[rows, vocab]` and is left as it is; without any processor it is also the result.
    A row's result does not depend on the others. After each stage `record` is shown its name, the rows that
    it changed and all logits as they are then.
    """
    orders = {row.params.processor_order for row in rows}
    if len(orders) == 1:
        return _in_order(orders.pop() or DEFAULT_ORDER, logits, range(len(rows)), rows, record)
    result = logits
    for order in orders:
        members = [i for i, row in enumerate(rows) if row.params.processor_order == order]
        result = _in_order(order or DEFAULT_ORDER, result, members, rows, record, owned=result is not logits)
    return result


def _in_order(
    order: Sequence[str],
    logits: Tensor,
    members: Sequence[int],
    rows: Sequence[Row],
    record: Record | None,
    *,
    owned: bool = False,
) -> Tensor:
    """Apply the processors in this order to some of the rows; `owned` logits may be changed."""
    result = logits
    for name in order:
        processor = PROCESSORS.get(name)
        using = [] if processor is None else [i for i in members if processor.wants(rows[i].params)]
        if processor is None or not using:
            continue
        if result is logits and not owned:
            result = logits.clone()
        if len(using) == len(rows):
            processor.apply(result, rows)
        else:
            index = torch.tensor(using, device=logits.device)
            part = result[index]
            processor.apply(part, [rows[i] for i in using])
            result[index] = part
        if record is not None:
            record(name, using, result)
    return result
