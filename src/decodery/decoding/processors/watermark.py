"""Watermarks a text by making a part of the vocabulary, the green list, likelier; detects such a mark.

The method is that of Kirchenbauer et al. 2023. The lists are those of transformers, so that its detector and
this one find each other's marks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from decodery.decoding.request.watermark_params import Watermark
from decodery.decoding.rows import Row
from decodery.errors import ParameterError
from decodery.kernels.vocabulary.dispatch import leaders
from decodery.token_ids import plain

_TABLE = 1_000_003
# If the list depends on the candidate token itself, only this many of the likeliest are tried.
_TRIED = 40


@dataclass(frozen=True, slots=True)
class Detection:
    """Holds what the detector found in a text.

    Of `scored` different n-grams, `green` end in a green token. `z` says by how many standard deviations that
    exceeds the number expected of unmarked text; `p_value` is the probability that unmarked text reaches it.
    """

    green: int
    scored: int
    z: float
    p_value: float


def watermark(logits: Tensor, rows: Sequence[Row]) -> None:
    """Adds the bias to the logits of each row's green tokens; a row of too few tokens has none.

    Changes float32 logits `[rows, vocab]` in place.
    """
    for logit, row in zip(logits, rows, strict=True):
        mark = row.params.watermark
        if mark is None or len(row.tokens) < mark.context_width:
            continue
        context = row.tokens[-mark.context_width :].tolist()
        if mark.seeding_scheme == "selfhash":
            logit[_green_candidates(logit, context, mark)] += mark.bias
        else:
            logit[_green_list(context, mark, len(logit)).to(logit.device)] += mark.bias


def detect(token_ids: Sequence[int], watermark: Watermark, vocab_size: int) -> Detection:
    """Tests a text, given by its tokens without the prompt's, for the watermark.

    A repeated n-gram is scored once, because its occurrences are not independent. `vocab_size` is the number
    of the model's logits. Raises `ParameterError` if there are fewer tokens than one n-gram.
    """
    selfhash = watermark.seeding_scheme == "selfhash"
    size = watermark.context_width + (0 if selfhash else 1)
    token_ids = list(map(plain, plain(token_ids)))
    if len(token_ids) < size:
        raise ParameterError(f"token_ids has {len(token_ids)} tokens; this watermark needs {size} or more")
    ngrams = {tuple(token_ids[i : i + size]) for i in range(len(token_ids) - size + 1)}
    green = sum(
        _is_green(gram[-1], gram if selfhash else gram[:-1], watermark, vocab_size) for gram in ngrams
    )
    share = watermark.greenlist_ratio
    z = (green - share * len(ngrams)) / math.sqrt(len(ngrams) * share * (1 - share))
    return Detection(green, len(ngrams), z, math.erfc(z / math.sqrt(2)) / 2)


def _green_candidates(logit: Tensor, context: Sequence[int], mark: Watermark) -> list[int]:
    values, tokens = leaders(logit[None], min(_TRIED, len(logit)))
    possible = tokens[values > -torch.inf].tolist()
    return [t for t in possible if _is_green(t, [*context, t], mark, len(logit))]


def _is_green(token: int, context: Sequence[int], mark: Watermark, vocab: int) -> bool:
    return bool((_green_list(context, mark, vocab) == token).any())


def _green_list(context: Sequence[int], mark: Watermark, vocab: int) -> Tensor:
    """Returns the green tokens after this context."""
    generator = torch.Generator().manual_seed(_seed(context[-mark.context_width :], mark) % (2**64 - 1))
    return torch.randperm(vocab, generator=generator)[: int(vocab * mark.greenlist_ratio)]


def _seed(context: Sequence[int], mark: Watermark) -> int:
    if mark.seeding_scheme == "lefthash":
        return mark.hashing_key * context[-1]
    hashed = _table(mark.hashing_key)[torch.tensor(context) % _TABLE] + 1
    return int((mark.hashing_key * hashed * hashed[-1]).min())


@lru_cache(maxsize=4)
def _table(key: int) -> Tensor:
    """Returns a fixed permutation by which tokens are hashed."""
    return torch.randperm(_TABLE, generator=torch.Generator().manual_seed(key))
