"""Turns texts, pairs of texts and token ids into what an encoder reads."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Literal

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.spans import lowered
from decodery.encoding.text_batches import TokenText
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.text.tokenizer.tokenizer import without_surrogates
from decodery.token_ids import plain

Long = Literal["error", "cut"]
"""What happens to a text that is too long for the model: an error, or its end is cut off."""


def single(
    parts: EncoderParts,
    text: str | Sequence[int],
    *,
    long: Long = "error",
    lowers: bool = False,
    prompt: str = "",
) -> TokenText:
    """Returns a prompt and a text with the special tokens around them, or token ids as they are.

    `lowers` puts the text into lower case. Raises `RequestError` for a text that is too long or has no token,
    and `ParameterError` for ids outside the vocabulary.
    """
    (found,) = parts_of_text(parts, text, limit=parts.rules.limit, prompt=prompt, long=long, lowers=lowers)
    return found


def parts_of_text(
    parts: EncoderParts,
    text: str | Sequence[int],
    *,
    limit: int,
    prompt: str = "",
    long: Long | Literal["windows"] = "error",
    lowers: bool = False,
    marker: Sequence[int] = (),
) -> list[TokenText]:
    """Returns what `single` returns, of a prompt and a text, in a list.

    With `windows`, a text that is too long is divided, and each part has the prompt and the special tokens.
    Token ids have neither. `marker` are tokens before the prompt, which count as a part of it. `lowers` puts
    texts into lower case. A token at the border of prompt and text belongs to the text.
    """
    if not isinstance(text, str):
        return _given_parts(parts, text, limit, long)
    layout = parts.tokenizer.single_layout
    ids, own = _prompted(parts, prompt, text, lowers)
    ids, own = [*marker, *ids], len(marker) + own
    others = layout.added + own
    start = len(layout.before.ids) + own
    if others > limit:
        if not own:
            raise RequestError(f"{layout.added} special tokens stand around a text, and {limit} fit")
        raise RequestError(
            f"the {layout.added} special tokens and {own} of the prompt are {others} tokens, and {limit} fit:"
            " shorten the prompt"
        )
    found = []
    for kept, lost in _divided(ids[own:], limit - others, others, long):
        joined, segments = layout.joined([*ids[:own], *kept])
        if not joined:
            raise RequestError("the text has no token, and the model puts none around it: give it a text")
        found.append(TokenText(joined, segments, ((start, start + len(kept)),), lost))
    return found


def _prompted(parts: EncoderParts, prompt: str, text: str, lowers: bool) -> tuple[list[int], int]:
    """Returns the tokens of a prompt and a text, and how many of them are the prompt's."""
    whole = prompt + text
    if lowers:
        prompt, whole = lowered(prompt), lowered(whole)
    if not prompt:
        return parts.tokenizer.encode(whole, add_special_tokens=False), 0
    ids, spans = parts.tokenizer.encode_spans(whole, add_special_tokens=False)
    end = len(without_surrogates(prompt).encode())
    return ids, next((place for place, span in enumerate(spans) if span[1] > end), len(ids))


def _given_parts(
    parts: EncoderParts, ids: Sequence[int], limit: int, long: Long | Literal["windows"]
) -> list[TokenText]:
    tokens = parts_checked(parts, ids)
    if not tokens:
        raise RequestError("there are no token ids: give one at least")
    return [
        TokenText(tuple(kept), (0,) * len(kept), ((0, len(kept)),), lost)
        for kept, lost in _divided(tokens, limit, 0, long)
    ]


def _divided(
    ids: Sequence[int], allowed: int, others: int, long: Long | Literal["windows"]
) -> list[tuple[Sequence[int], int]]:
    """Returns the tokens to read in each part of a text, and how many are lost with it."""
    if long != "windows" or len(ids) <= allowed:
        count = checked(len(ids), allowed, others, "error" if long == "windows" else long)
        return [(ids[:count], len(ids) - count)]
    if allowed < 1:
        raise RequestError(f"the {others} tokens around a text leave no place for it")
    return [(ids[start : start + allowed], 0) for start in range(0, len(ids), allowed)]


def pair(
    parts: EncoderParts,
    first: str,
    second: str,
    *,
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
    limit, lowers = parts.rules
    texts = [lowered(text) if lowers else text for text in (first, second)]
    one, two = (parts.tokenizer.encode(text, add_special_tokens=False) for text in texts)
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
    """Returns token ids as plain integers.

    Raises `ParameterError` for anything but a list of integers, and for one outside the vocabulary.
    """
    listed = plain(ids)
    if not isinstance(listed, Sequence) or isinstance(listed, (str, bytes)):
        raise ParameterError(f"a text must be a str or a list of token ids, not {type(ids).__name__}")
    found = []
    for place, token in enumerate(map(plain, listed)):
        try:
            if isinstance(token, bool):
                raise TypeError
            value = operator.index(token)
        except TypeError:
            raise ParameterError(f"token ids must be integers, not {type(token).__name__}") from None
        if not 0 <= value < parts.model.vocab_size:
            raise ParameterError(
                f"token id {value} at place {place} is outside the vocabulary of {parts.model.vocab_size}"
            )
        found.append(value)
    return found
