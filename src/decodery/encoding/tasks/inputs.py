"""Reads the texts, pairs of texts and token ids of a call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from typing import Any, TypeAlias, TypeGuard

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long, pair, single
from decodery.encoding.vectors.sentence_folder import default_prompt
from decodery.errors import ParameterError
from decodery.token_ids import listed_prompts, plain

Pair: TypeAlias = "tuple[str, str] | list[str]"
TextOrPair: TypeAlias = "str | Pair | Sequence[int]"
"""A text, two texts that belong together, or the token ids of a text."""


def listed(texts: Any) -> list[Any]:
    """Returns the inputs of a call: a text, a tuple of two texts or a list of token ids is one alone."""
    return [texts] if isinstance(texts, tuple) and is_pair(texts) else listed_prompts(texts)


def several(texts: Any, name: str) -> list[Any]:
    """Returns what an argument that takes several texts holds; one text alone is a list of one.

    Raises `ParameterError` for anything that cannot be read as a list.
    """
    if isinstance(texts, str):
        return [texts]
    if not isinstance(texts, Iterable) or isinstance(texts, (bytes, Mapping)):
        raise ParameterError(f"{name} must be a list of texts, not {type(texts).__name__}")
    return list(texts)


def is_pair(item: Any) -> TypeGuard[Pair]:
    """True if an input is two texts."""
    return (
        isinstance(item, (tuple, list))
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], str)
    )


def token_text(parts: EncoderParts, item: Any, *, long: Long, prompt: str = "") -> TokenText:
    """Returns what the model reads of a text, a pair or token ids.

    `prompt` is a text before a text or before the first of a pair. Raises `RequestError` for a text that is
    too long, and `ParameterError` for anything else.
    """
    if is_pair(item):
        return pair(parts, prompt + item[0], item[1], long=long)
    ids = plain(item)
    if not isinstance(ids, str) and (
        not isinstance(ids, Sequence) or any(not isinstance(plain(token), Number) for token in ids)
    ):
        raise ParameterError("give a text, a pair of two texts, or a list of token ids")
    return single(parts, ids, long=long, lowers=parts.rules.lowers, prompt=prompt)


def token_texts(parts: EncoderParts, items: Sequence[Any], *, long: Long) -> list[TokenText]:
    """Returns what the model reads of each input, with the folder's prompt; an error names the input."""
    prompt = default_prompt(parts.folder)
    found = []
    for index, item in enumerate(items):
        with numbered(index, len(items)):
            found.append(token_text(parts, item, long=long, prompt=prompt))
    return found


def checked_text(text: Any, name: str = "the text") -> str:
    """Returns a text; raises `ParameterError` for anything else, also for a pair."""
    if not isinstance(text, str):
        kind = "a pair of texts" if is_pair(text) else type(text).__name__
        raise ParameterError(f"{name} must be one text (a str), not {kind}")
    return text


def checked_long(long: Any) -> Long:
    """Returns what happens to long texts; raises `ParameterError` for anything but "error" and "cut"."""
    if long == "error" or long == "cut":
        found: Long = long
        return found
    raise ParameterError(f"long must be error or cut, not {long!r}")
