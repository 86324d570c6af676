"""Finds the spans of texts that a head of token classes labels, such as names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import Any, get_args

import numpy as np

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.input_errors import numbered
from decodery.encoding.results import TaggedSpan
from decodery.encoding.tasks.head_scores import Floats, head_scores, softmax
from decodery.encoding.tasks.labels import label_names
from decodery.encoding.tasks.tag_spans import (
    FoundSpan,
    LabelScheme,
    Merge,
    joined_windows,
    scheme_of,
    spans_of,
    word_scores,
)
from decodery.encoding.tasks.word_windows import Slice, chosen_overlap, windows
from decodery.encoding.tasks.words import Span, Word, token_spans, word_spans, words_with_tokens
from decodery.encoding.text_batches import TokenText
from decodery.errors import ParameterError
from decodery.text.tokenizer.tokenizer import without_surrogates

OVERLAP = 64
"""The number of tokens that two windows share, if the caller does not say."""


@dataclass(frozen=True)
class _Prepared:
    """Holds a text, its tokens and words, and the windows over its tokens. `given` are the caller's words."""

    text: str
    ids: Sequence[int]
    words: Sequence[Word]
    windows: Sequence[Slice]
    given: Sequence[Span] | None


def tag(
    parts: EncoderParts,
    inputs: Any,
    *,
    merge: Merge = "first",
    overlap: int | None = None,
    ignore: Collection[str] = ("O",),
) -> list[list[TaggedSpan]]:
    """Returns the labelled spans of each text; `LLM.tag` explains the arguments."""
    parts.head("token_classes")
    if merge not in get_args(Merge):
        raise ParameterError(f"merge must be one of {', '.join(get_args(Merge))}, not {merge!r}")
    if isinstance(ignore, str):
        raise ParameterError(f"ignore must be a list of labels, such as [{ignore!r}]")
    items = [inputs] if isinstance(inputs, str) else list(inputs)
    prepared = []
    for index, item in enumerate(items):
        with numbered(index, len(items)):
            prepared.append(_prepared(parts, item, merge, overlap))
    layout = parts.tokenizer.single_layout
    texts = [
        TokenText(*layout.joined(text.ids[start:end])) for text in prepared for start, end in text.windows
    ]
    found: dict[int, list[FoundSpan]] = {}
    before, scheme = len(layout.before.ids), None
    owners = [(text, window) for text in prepared for window in text.windows]
    for index, rows in head_scores(parts, "token_classes", texts):
        scheme = scheme or scheme_of(label_names(parts, rows.shape[1]), ignore, merge)
        text, window = owners[index]
        scores = softmax(rows[before : before + window[1] - window[0]])
        found[index] = _window_spans(text, window, scores, scheme, merge)
    numbers = iter(range(len(texts)))
    return [_tagged(text, [found[next(numbers)] for _ in text.windows], scheme) for text in prepared]


def _prepared(parts: EncoderParts, item: Any, merge: Merge, overlap: int | None) -> _Prepared:
    """Returns a text with its words, or one that is made of given words."""
    given = None
    if isinstance(item, str):
        text = without_surrogates(item)
    else:
        text, given = joined_words(item)
    ids, spans = token_spans(parts.tokenizer, text)
    words = words_with_tokens(parts.tokenizer, ids, spans, word_spans(text) if given is None else given)
    capacity = parts.rules.limit - parts.tokenizer.single_layout.added
    shared = chosen_overlap(overlap, capacity, OVERLAP)
    cuts = [word.first for word in words]
    if merge in ("simple", "none"):
        words = [Word(*span, place, place + 1) for place, span in enumerate(spans) if span[0] < span[1]]
    return _Prepared(text, ids, words, windows(len(ids), cuts, capacity, shared) if words else [], given)


def joined_words(words: Any) -> tuple[str, list[Span]]:
    """Returns words with spaces between them, and the characters of each."""
    if not isinstance(words, Sequence) or not all(isinstance(word, str) and word.strip() for word in words):
        raise ParameterError("give a text (a str) or the list of its words, each a text that is not empty")
    parts = [without_surrogates(word) for word in words]
    starts = [0, *accumulate(len(part) + 1 for part in parts)]
    return " ".join(parts), [(start, start + len(part)) for start, part in zip(starts, parts, strict=False)]


def _window_spans(
    text: _Prepared, window: Slice, scores: Floats, scheme: LabelScheme, merge: Merge
) -> list[FoundSpan]:
    """Returns the spans of a window whose tokens have the scores [tokens, labels]."""
    start = window[0]
    first, last = (bisect_left(text.words, edge, key=attrgetter("first")) for edge in window)
    if first == last:
        return []
    rows = [
        word_scores(scores[word.first - start : word.last - start], merge) for word in text.words[first:last]
    ]
    return spans_of(np.stack(rows), first, scheme, cut_start=first > 0, cut_end=last < len(text.words))


def _tagged(
    text: _Prepared, found: Sequence[Sequence[FoundSpan]], scheme: LabelScheme | None
) -> list[TaggedSpan]:
    if scheme is None:
        return []
    return list(_as_results(text, joined_windows(found, scheme)))


def _as_results(text: _Prepared, spans: Sequence[FoundSpan]) -> Iterator[TaggedSpan]:
    for span in spans:
        start, end = text.words[span.first].start, text.words[span.last - 1].end
        given = None
        if text.given is not None:
            touched = [n for n, word in enumerate(text.given) if word[0] < end and start < word[1]]
            given = touched[0], touched[-1] + 1
        yield TaggedSpan(span.kind, span.score, start, end, text.text[start:end], given)
