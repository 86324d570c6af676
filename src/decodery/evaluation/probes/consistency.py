"""Measures whether a model gives the same answer again, and what most of its answers say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from decodery.errors import ParameterError
from decodery.metrics.score import Score, mean

Answers = Sequence[Hashable | None]


def agreement(answers: Sequence[Answers]) -> Score:
    """Returns how often two answers to the same question are equal, in the mean over the questions.

    `answers` has for each question the answers over seeds or over paraphrases; None is an answer that could
    not be read, and equals no other. A question with one answer is undefined. Raises `ParameterError`
    without questions.
    """
    if not answers:
        raise ParameterError("there are no questions")
    return mean([_agreement(given) for given in answers], settings="pairs of answers to one question")


def _agreement(given: Answers) -> float | None:
    count = len(given)
    if count < 2:
        return None
    equal = sum(n * (n - 1) for n in Counter(one for one in given if one is not None).values())
    return equal / (count * (count - 1))


def majority(given: Answers) -> tuple[Hashable | None, bool]:
    """Returns the answer that most of the answers give, and True if another has as many votes.

    Of answers with the same number of votes the one that occurs first is returned, and None if none could be
    read. Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models (2022).
    """
    counts = Counter(one for one in given if one is not None).most_common(2)
    if not counts:
        return None, False
    return counts[0][0], len(counts) > 1 and counts[0][1] == counts[1][1]


def voted_score(answers: Sequence[Answers], value: Callable[[int, Hashable], float]) -> Score:
    """Returns the mean value of the answers that most samples of each question give.

    `value` returns that of an answer to the question at a place. A question of which no sample could be read
    is 0, and `settings` counts such questions and ties.
    """
    votes = [majority(given) for given in answers]
    unread = sum(answer is None for answer, _ in votes)
    ties = sum(tie for _, tie in votes)
    values = [0.0 if answer is None else value(place, answer) for place, (answer, _) in enumerate(votes)]
    return mean(values, settings=f"the first of equal votes; ties {ties}, without an answer {unread}")
