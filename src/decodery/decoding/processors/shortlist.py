"""Holds the few tokens that top-k leaves of a row, so that later stages process these alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from decodery.decoding.rows import Row
from decodery.kernels.vocabulary.dispatch import copied, cut_below, keep_only, leaders

# Selecting more tokens than this costs as much as it saves.
_LARGEST = 512
_STEP = 16


@dataclass(frozen=True, slots=True)
class Shortlist:
    """Holds the tokens that are still possible in the rows at `places`: logits and tokens `[rows, width]`."""

    places: tuple[int, ...]
    logits: Tensor
    tokens: Tensor

    def write(self, logits: Tensor) -> None:
        """Writes the shortlist into all logits `[rows, vocab]`; its rows' other tokens become -inf."""
        if self.places == tuple(range(len(logits))):
            keep_only(logits, self.logits, self.tokens)
            return
        for place, values, tokens in zip(self.places, self.logits, self.tokens, strict=True):
            keep_only(logits[place : place + 1], values[None], tokens[None])


def width_of(top_k: int, vocab: int) -> int:
    """Returns how many tokens a shortlist for this top-k holds, more than k of them; 0 for no shortlist."""
    # One token more than k shows whether tokens outside may tie with the k-th.
    width = top_k // _STEP * _STEP + _STEP
    return width if top_k > 0 and width <= min(_LARGEST, vocab) else 0


def shortlists(logits: Tensor, rows: Sequence[Row], places: Sequence[int]) -> list[Shortlist]:
    """Returns shortlists of those rows, among these places, whose top-k is small and ties with few tokens.

    A row's parameters and logits alone decide whether it gets one and how wide it is; so every sum over the
    shortlist is the same in any batch.
    """
    widths: dict[int, list[int]] = {}
    for i in places:
        width = width_of(rows[i].params.top_k, logits.shape[-1])
        if width:
            widths.setdefault(width, []).append(i)
    return [s for width, members in widths.items() if (s := _shortlist(logits, rows, members, width))]


def _shortlist(logits: Tensor, rows: Sequence[Row], places: list[int], width: int) -> Shortlist | None:
    part = logits if len(places) == len(logits) else copied(logits, places)
    values, tokens = leaders(part, width)
    last = _tensor(logits, [rows[i].params.top_k - 1 for i in places])
    least = values.gather(-1, last[:, None])
    last_value = values[:, -1:]
    fits = ((last_value < least) | (last_value == -torch.inf))[:, 0].tolist()
    if not all(fits):
        kept = [j for j, fit in enumerate(fits) if fit]
        index = _tensor(logits, kept)
        places = [places[j] for j in kept]
        values, tokens, least = values[index], tokens[index], least[index]
    if not places:
        return None
    cut_below(values, least)
    return Shortlist(tuple(places), values, tokens)


def _tensor(logits: Tensor, values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.int64, device=logits.device)
