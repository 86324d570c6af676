"""Chooses answers from the scores of a context's tokens to begin and to end one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from decodery.encoding.tasks.head_scores import Floats


class WindowScores(NamedTuple):
    """Holds the logits of one window over a context.

    `starts` and `ends` [tokens] are those of the context's tokens to begin and to end the answer. `words`
    [tokens] are the numbers of the words that the tokens belong to, -1 for none. `null` is the sum of both
    logits for "no answer".
    """

    starts: Floats
    ends: Floats
    words: npt.NDArray[np.int64]
    null: tuple[float, float]


class WordAnswer(NamedTuple):
    """Holds an answer: a slice of words, and its probability. None: the context has no answer."""

    words: tuple[int, int] | None
    score: float


def answers(
    windows: Sequence[WindowScores],
    *,
    top_k: int,
    longest: int,
    null: bool,
    threshold: float = 0.0,
) -> list[WordAnswer]:
    """Returns the `top_k` likeliest answers of at most `longest` tokens, the best first.

    A span of tokens has the probability softmax(starts)[first] * softmax(ends)[last]. Both softmaxes are over
    the tokens of all windows, so that spans of different windows compare by their logits, and over one "no
    answer", that of the window with the least. Spans that widen to the same words, in whatever window, are
    one answer, and their probabilities are added. With `null`, "no answer" is among the answers, and the
    logarithm of its probability counts `threshold` less in the order. Devlin et al., BERT (2019).
    """
    none = min((window.null for window in windows), key=sum)
    start_total = _log_sum(np.concatenate([*(window.starts for window in windows), [none[0]]]))
    end_total = _log_sum(np.concatenate([*(window.ends for window in windows), [none[1]]]))
    found: dict[tuple[int, int], float] = {}
    for window in windows:
        _add_spans(found, window, longest, start_total + end_total)
    ordered = [(score, WordAnswer(words, score)) for words, score in sorted(found.items()) if score > 0]
    if null:
        score = float(np.exp(sum(none) - start_total - end_total))
        ordered.append((score * float(np.exp(-threshold)), WordAnswer(None, score)))
    ordered.sort(key=lambda entry: -entry[0])
    return [answer for _, answer in ordered[:top_k]]


def _add_spans(found: dict[tuple[int, int], float], window: WindowScores, longest: int, total: float) -> None:
    """Adds the probabilities of a window's spans to those of their words."""
    starts, ends, words = window.starts, window.ends, window.words
    for length in range(min(longest, len(starts))):
        last = len(starts) - length
        scores = np.exp(starts[:last] + ends[length:] - total)
        whole = (words[:last] >= 0) & (words[length:] >= 0)
        pairs = zip(
            words[:last][whole].tolist(), words[length:][whole].tolist(), scores[whole].tolist(), strict=True
        )
        for first_word, last_word, score in pairs:
            key = first_word, last_word + 1
            found[key] = found.get(key, 0.0) + score


def _log_sum(logits: Floats) -> float:
    """Returns the logarithm of the sum of exponentials."""
    most = logits.max()
    return float(most + np.log(np.exp(logits - most).sum()))
