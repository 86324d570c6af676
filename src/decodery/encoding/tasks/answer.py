"""Finds the part of a context that answers a question."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decodery.encoding.encoder_parts import EncoderParts
from decodery.encoding.results import Answer
from decodery.encoding.tasks.answer_spans import WindowScores, answers
from decodery.encoding.tasks.head_scores import Floats, ordered_scores
from decodery.encoding.tasks.inputs import checked_text
from decodery.encoding.tasks.word_windows import Slice, chosen_overlap, windows
from decodery.encoding.tasks.words import Word, token_spans, word_spans, words_with_tokens
from decodery.encoding.text_batches import TokenText
from decodery.errors import ModelError, ParameterError, RequestError
from decodery.text.tokenizer.tokenizer import without_surrogates
from decodery.text.tokenizer.vocabulary import TextLayout

OVERLAP = 128
"""The number of tokens that two windows share, if the caller does not say."""


class _Question(NamedTuple):
    """Holds what a question over a context is made of; `start` is the place of the context's first token."""

    layout: TextLayout
    question: list[int]
    context: list[int]
    words: list[Word]
    slices: list[Slice]

    @property
    def start(self) -> int:
        return len(self.layout.before.ids) + len(self.question) + len(self.layout.between.ids)

    def texts(self) -> list[TokenText]:
        """Returns what the model reads: the question with each window of the context."""
        return [
            TokenText(*self.layout.joined(self.question, self.context[start:end]))
            for start, end in self.slices
        ]


def answer(
    parts: EncoderParts,
    question: str,
    context: str,
    *,
    top_k: int = 1,
    no_answer: bool | float | None = None,
    overlap: int | None = None,
    longest: int = 15,
) -> list[Answer]:
    """Returns the likeliest answers in a context, the best first; `LLM.answer` explains the arguments."""
    parts.head("spans")
    for name, value in {"top_k": top_k, "longest": longest}.items():
        if type(value) is not int or value < 1:
            raise ParameterError(f"{name} must be a whole number from 1 on, not {value!r}")
    null, threshold = _null_rule(no_answer)
    context = without_surrogates(checked_text(context, "the context"))
    asked = _prepared(parts, checked_text(question, "the question"), context, overlap)
    rows = ordered_scores(parts, "spans", asked.texts())
    words_of = _words_of_tokens(asked)
    found = answers(
        [_window(asked, window, scores, words_of) for window, scores in zip(asked.slices, rows, strict=True)],
        top_k=top_k,
        longest=longest,
        null=null,
        threshold=threshold,
    )
    results = []
    for words, score in found:
        start, end = (0, 0) if words is None else _characters(asked.words, words)
        results.append(Answer(context[start:end], score, start, end))
    return results


def _null_rule(no_answer: bool | float | None) -> tuple[bool, float]:
    """Returns whether "no answer" is an answer, and by how much it must be likelier."""
    if no_answer is None or isinstance(no_answer, bool):
        return bool(no_answer), 0.0
    if type(no_answer) not in (int, float) or not math.isfinite(no_answer):
        raise ParameterError(f"no_answer must be True, False, or a number, not {no_answer!r}")
    return True, float(no_answer)


def _prepared(parts: EncoderParts, question: str, context: str, overlap: int | None) -> _Question:
    layout = parts.tokenizer.pair_layout
    if layout is None:
        raise ModelError(f"{parts.folder}: the tokenizer has no layout of pairs, so that it has no questions")
    ids = parts.tokenizer.encode(question, add_special_tokens=False)
    if not ids:
        raise RequestError("the question is empty: ask something")
    capacity = parts.rules.limit - layout.added - len(ids)
    if capacity < 1:
        raise RequestError(
            f"the question has {len(ids)} tokens; with {layout.added} special tokens no token of the context"
            f" fits into {parts.rules.limit}: shorten it"
        )
    tokens, spans = token_spans(parts.tokenizer, context)
    words = words_with_tokens(parts.tokenizer, tokens, spans, word_spans(context))
    if not words:
        raise RequestError("the context has no word: give the text that holds the answer")
    shared = chosen_overlap(overlap, capacity, OVERLAP)
    slices = windows(len(tokens), [word.first for word in words], capacity, shared)
    return _Question(layout, ids, tokens, words, slices)


def _words_of_tokens(asked: _Question) -> npt.NDArray[np.int64]:
    """Returns the number of the word of each token of the context, -1 for none."""
    found = np.full(len(asked.context), -1, dtype=np.int64)
    for number, word in enumerate(asked.words):
        found[word.first : word.last] = number
    return found


def _window(asked: _Question, window: Slice, scores: Floats, words: npt.NDArray[np.int64]) -> WindowScores:
    """Returns the scores of the context's tokens in a window, and of the token for "no answer"."""
    start, end = window
    inside = scores[asked.start : asked.start + end - start]
    # The first token is the null answer, or the last one where none is before the question, as in XLNet.
    null = scores[0] if asked.layout.before.ids else scores[-1]
    return WindowScores(inside[:, 0], inside[:, 1], words[start:end], (float(null[0]), float(null[1])))


def _characters(words: list[Word], found: tuple[int, int]) -> tuple[int, int]:
    return words[found[0]].start, words[found[1] - 1].end
