"""Adds all logits of a choice to what it considered, for requests that ask for them."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import takewhile

from torch import Tensor

from decodery.decoding.processors.pipeline import PROCESSORS, plans_of, process
from decodery.decoding.request.processor_order import DEFAULT_ORDER
from decodery.decoding.rows import Row
from decodery.decoding.trace import Considered


def with_logits(considered: Considered, raw: Tensor, row: Row) -> Considered:
    """Returns a record of the row's choice with its logits, if the row shows them.

    `raw` are the row's unprocessed logits, float32 `[vocab]`.
    """
    if not row.shows_logits:
        return considered
    adjusted = _adjusted(raw, row)
    return replace(
        considered,
        logits=_little_endian(raw),
        adjusted_logits=b"" if adjusted is None else _little_endian(adjusted),
    )


def _adjusted(raw: Tensor, row: Row) -> Tensor | None:
    """Returns the logits before the first stage that may shape what is sampled; None if nothing changed them.

    That is the first such stage in the row's order, whether the row uses it or not.
    """
    order = row.params.processor_order or DEFAULT_ORDER
    before = set(takewhile(lambda name: not PROCESSORS[name].shapes, order))
    plan = [name for name in plans_of([row])[0] if name in before]
    if not plan:
        return None
    adjusted = process(raw[None], [row], plans=[plan])[0]
    return None if bool((adjusted == raw).all()) else adjusted


def _little_endian(logits: Tensor) -> bytes:
    values = logits.float().cpu().contiguous().numpy()
    return (values if sys.byteorder == "little" else values.byteswap()).tobytes()
