"""Gives the states of tokens, and of words that the caller names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import TokenEmbeddings, Vector, WordEmbedding
from decodery.encoding.spans import character_spans
from decodery.encoding.text_batches import TokenText
from decodery.encoding.texts import Long, parts_of_text
from decodery.errors import DecoderyError, ModelError, ParameterError
from decodery.text.tokenizer.byte_spans import Span
from decodery.token_ids import listed_prompts

NO_SPACES = 0x2E80
"""The first character of the scripts that put no spaces between words."""


def embed_tokens(
    parts: EncoderParts,
    texts: Any,
    *,
    layer: int = -1,
    words: str | Sequence[str] | None = None,
    long: Long = "error",
    prompt_name: str | None = None,
    prompt: str | None = None,
    query: bool = False,
    document: bool = False,
) -> list[TokenEmbeddings]:
    """Returns the states of each text's tokens; `EncodingCalls.embed_tokens` explains the arguments."""
    number = _layer(parts, layer)
    wanted = _words(words)
    before = parts.vectors.prompt(prompt_name=prompt_name, prompt=prompt, query=query, document=document)
    return _embedded(parts, texts, (number,), wanted, long, before)[0]


def embed_token_layers(
    parts: EncoderParts, texts: Any, layers: Sequence[int], *, long: Long = "error"
) -> list[list[TokenEmbeddings]]:
    """Returns what `embed_tokens` returns for each of these layers, from one pass over the texts."""
    numbers = tuple(_layer(parts, layer) for layer in layers)
    return _embedded(parts, texts, numbers, (), long, "")


def _embedded(
    parts: EncoderParts,
    texts: Any,
    numbers: Sequence[int],
    words: Sequence[str],
    long: Long,
    before: str,
) -> list[list[TokenEmbeddings]]:
    if long not in ("error", "cut"):
        raise ParameterError(f"long must be error or cut, not {long!r}")
    listed = listed_prompts(texts)
    read = [_read(parts, listed, index, before, bool(words), long) for index in range(len(listed))]
    found: list[dict[int, TokenEmbeddings]] = [{} for _ in numbers]
    inner = tuple(number for number in numbers if number != parts.model.depth)
    for batch in parts.runner.run([text for text, _ in read], layers=inner):
        for number, of_layer in zip(numbers, found, strict=True):
            states = batch.states if number == parts.model.depth else batch.layers[number]
            for place, index in enumerate(batch.indices):
                vectors = batch.of(place, states).float().cpu().numpy().copy()
                if not np.isfinite(vectors).all():
                    raise ModelError(f"{parts.folder}: text {index} has states that are not finite")
                text, spans = read[index]
                pieces = _occurrences(listed[index], words, spans, vectors) if words else ()
                of_layer[index] = TokenEmbeddings(text.ids, tuple(spans), vectors, text.lost, pieces)
    return [[of_layer[index] for index in range(len(listed))] for of_layer in found]


def _layer(parts: EncoderParts, layer: int) -> int:
    depth = parts.model.depth
    if type(layer) is not int or not -depth - 1 <= layer <= depth:
        raise ParameterError(
            f"layer must be a whole number from 0, the embeddings, to {depth}, or from -1 back, not {layer!r}"
        )
    return layer % (depth + 1)


def _words(words: str | Sequence[str] | None) -> list[str]:
    listed = [words] if isinstance(words, str) else list(words or ())
    for word in listed:
        if not isinstance(word, str) or not word.strip():
            raise ParameterError(f"words must be texts with a letter at least, not {word!r}")
    return [word.strip() for word in listed]


def _read(
    parts: EncoderParts, texts: Sequence[Any], index: int, prompt: str, words: bool, long: Long
) -> tuple[TokenText, list[Span]]:
    """Returns what the model reads of a text, and the span of each token in it; others have (0, 0)."""
    text = texts[index]
    settings = parts.vectors
    try:
        (found,) = parts_of_text(
            parts, text, prompt=prompt, limit=settings.limit, long=long, lowers=settings.lowers
        )
    except DecoderyError as error:
        if len(texts) == 1:
            raise
        raise type(error)(f"text {index}: {error}", param=f"texts[{index}]") from None
    spans = [(0, 0)] * len(found.ids)
    if isinstance(text, str):
        first, end = found.content[0]
        own = first - len(parts.tokenizer.single_layout.before.ids)
        whole = character_spans(parts.tokenizer, prompt + text, lowers=settings.lowers)[1]
        offset = len(prompt)
        # A token at the border of prompt and text begins in the prompt.
        spans[first:end] = [
            (max(start - offset, 0), stop - offset) for start, stop in whole[own : own + end - first]
        ]
    elif words:
        raise ParameterError("words are found in texts, and token ids are given: leave words out")
    return found, spans


def _occurrences(
    text: str, words: Sequence[str], spans: Sequence[Span], vectors: Vector
) -> tuple[WordEmbedding, ...]:
    """Returns the words that are whole words of the text, in their order, with the means of their tokens."""
    places = {
        (found.start(), found.end())
        for word in words
        for found in re.finditer(re.escape(word), text)
        if not _joined(text, found.start()) and not _joined(text, found.end())
    }
    found = []
    for start, end in sorted(places):
        tokens = [place for place, span in enumerate(spans) if max(span[0], start) < min(span[1], end)]
        # A word whose end was cut off has no vector; accents may have no token.
        if tokens and all(map(_is_mark, text[max(spans[place][1] for place in tokens) : end])):
            found.append(WordEmbedding(text[start:end], start, end, vectors[tokens].mean(0)))
    return tuple(found)


def _joined(text: str, place: int) -> bool:
    """True if the characters on both sides of a place belong to one word."""
    if not 0 < place < len(text):
        return False
    return _is_mark(text[place]) or (_in_word(text[place - 1]) and _in_word(text[place]))


def _in_word(character: str) -> bool:
    belongs = character == "_" or character.isalnum() or _is_mark(character)
    return belongs and ord(character) < NO_SPACES


def _is_mark(character: str) -> bool:
    """True if it is an accent or a vowel sign, which belongs to the letter before it."""
    return unicodedata.category(character).startswith("M")
