"""Measures short answers against one or several right ones: exact match and F1 of words."""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from decodery.metrics.arguments import listed, refuse, same_length, texts
from decodery.metrics.score import Score, mean

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)

# For each sample one right answer, or a list of them.
Gold = Sequence[str | Sequence[str]]


def exact_match(
    gold: Gold,
    predicted: Sequence[str | None],
    *,
    normalised: bool = True,
    groups: Sequence[Hashable] | None = None,
) -> Score:
    """Returns the fraction of samples whose answer is one of the right ones.

    With `normalised` both are first normalised as SQuAD does (`normalise`). None is no answer, and wrong.
    Raises `ParameterError` for no samples, other lengths, and a sample without right answers.
    """

    def same(right: str, answer: str) -> float:
        return float(normalise(right) == normalise(answer) if normalised else right == answer)

    settings = "SQuAD normalisation" if normalised else "exact text"
    return _best(same, gold, predicted, groups, settings)


def token_f1(
    gold: Gold, predicted: Sequence[str | None], *, groups: Sequence[Hashable] | None = None
) -> Score:
    """Returns the mean F1 between the words of an answer and of the right one that it is closest to.

    Words are those between spaces after SQuAD's normalisation. If either text has no words, F1 is 1 where
    neither has, as in SQuAD 2, else 0. None is no answer, and has 0.
    Raises `ParameterError` as `exact_match` does.
    Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text (2016).
    """
    return _best(_overlap, gold, predicted, groups, "SQuAD normalisation")


def normalise(text: str) -> str:
    """Returns a text in lower case, without ASCII punctuation, English articles and repeated spaces.

    Where nothing would be left, as of the answer "A", the lower-case text keeps what would be removed.
    Characters are composed (Unicode's NFC) first, so that one letter has one form.
    """
    lower = unicodedata.normalize("NFC", text).lower()
    words = ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split()
    return " ".join(words or lower.split())


def _overlap(right: str, answer: str) -> float:
    wanted, found = normalise(right).split(), normalise(answer).split()
    if not wanted or not found:
        return float(wanted == found)
    return 2 * (Counter(wanted) & Counter(found)).total() / (len(wanted) + len(found))


def _best(
    measure: Callable[[str, str], float],
    gold: Gold,
    predicted: Sequence[str | None],
    groups: Sequence[Hashable] | None,
    settings: str,
) -> Score:
    """Returns the mean over samples of the best measure against one of the right answers."""
    rights, answers = listed("gold", gold), listed("predicted", predicted)
    same_length(gold=rights, predicted=answers)
    values = []
    for index, (right, answer) in enumerate(zip(rights, answers, strict=True)):
        options = [right] if isinstance(right, str) else texts(f"gold[{index}]", right)
        if answer is not None and not isinstance(answer, str):
            refuse(f"predicted[{index}]", f"must be a text, or None for no answer: {answer!r}")
        values.append(0.0 if answer is None else max(measure(option, answer) for option in options))
    missing = sum(answer is None for answer in answers)
    if missing:
        settings += f"; {missing} without an answer, counted as wrong"
    return mean(values, groups=groups, settings=settings)
