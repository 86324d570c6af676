"""Turns texts, pairs of texts and token ids into what an encoder reads."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Literal

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.text_batches import TokenText
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.token_ids import plain

Long = Literal["error", "cut"]
"""What happens to a text that is too long for the model: an error, or its end is cut off."""


def single(
    parts: EncoderParts, text: str | Sequence[int], *, limit: int | None = None, long: Long = "error"
) -> TokenText:
    """Returns a text with the special tokens around it, or token ids as they are.

    `limit` is the number of tokens that fit (None: the model's context). Raises `RequestError` for a text
    that is too long or has no token, and `ParameterError` for ids outside the vocabulary.
    """
    limit = parts.model.context_length if limit is None else limit
    if not isinstance(text, str):
        return given(parts, text, limit=limit, long=long)
    layout = parts.tokenizer.single_layout
    ids = parts.tokenizer.encode(text, add_special_tokens=False)
    allowed = limit - layout.added
    kept = ids[: checked(len(ids), allowed, layout.added, long)]
    joined, segments = layout.joined(kept)
    if not joined:
        raise RequestError("the text has no token, and the model puts none around it: give it a text")
    start = len(layout.before.ids)
    return TokenText(joined, segments, ((start, start + len(kept)),), len(ids) - len(kept))


def given(parts: EncoderParts, ids: Sequence[int], *, limit: int, long: Long) -> TokenText:
    """Returns token ids as they are, nothing added; all are content."""
    tokens = tuple(parts_checked(parts, ids))
    if not tokens:
        raise RequestError("there are no token ids: give one at least")
    kept = tokens[: checked(len(tokens), limit, 0, long)]
    return TokenText(kept, (0,) * len(kept), ((0, len(kept)),), len(tokens) - len(kept))


def pair(
    parts: EncoderParts,
    first: str,
    second: str,
    *,
    limit: int | None = None,
    long: Long = "error",
    cut: Literal["first", "second"] = "second",
) -> TokenText:
    """Returns two texts with the special tokens around and between them.

    Of a pair that is too long, `cut` is the text whose end is removed if `long` says so. Raises
    `RequestError` for one that is too long, also if the other text alone is, and `ModelError` if the
    tokenizer has no layout of pairs.
    """
    layout = parts.tokenizer.pair_layout
    if layout is None:
        raise ModelError(
            f"{parts.folder}: the tokenizer declares no special tokens between the texts of a pair, so the"
            " model cannot read pairs"
        )
    limit = parts.model.context_length if limit is None else limit
    one, two = (parts.tokenizer.encode(text, add_special_tokens=False) for text in (first, second))
    whole, shortened = (two, one) if cut == "first" else (one, two)
    allowed = limit - layout.added - len(whole)
    if allowed < 0:
        raise RequestError(
            f"the {'second' if cut == 'first' else 'first'} text of the pair has {len(whole)} tokens; with"
            f" {layout.added} special tokens at most {limit} fit: shorten it"
        )
    kept = checked(len(shortened), allowed, layout.added + len(whole), long)
    lost = len(shortened) - kept
    if cut == "first":
        one = one[:kept]
    else:
        two = two[:kept]
    joined, segments = layout.joined(one, two)
    start = len(layout.before.ids)
    middle = start + len(one) + len(layout.between.ids)
    return TokenText(joined, segments, ((start, start + len(one)), (middle, middle + len(two))), lost)


def checked(length: int, allowed: int, others: int, long: Long) -> int:
    """Returns how many tokens of a text to keep; raises `RequestError` if it is too long and is not cut."""
    if length <= allowed:
        return length
    if long == "cut":
        return max(allowed, 0)
    besides = f" beside {others} others" if others else ""
    raise RequestError(
        f"the text has {length} tokens, and {max(allowed, 0)} fit{besides}: shorten it, or let it be cut"
    )


def parts_checked(parts: EncoderParts, ids: Sequence[int]) -> list[int]:
    """Returns token ids as plain integers; raises `ParameterError` for one outside the vocabulary."""
    found = []
    for place, token in enumerate(map(plain, plain(ids))):
        try:
            value = operator.index(token)
        except TypeError:
            raise ParameterError(f"token ids must be integers, not {type(token).__name__}") from None
        if not 0 <= value < parts.model.vocab_size:
            raise ParameterError(
                f"token id {value} at place {place} is outside the vocabulary of {parts.model.vocab_size}"
            )
        found.append(value)
    return found
