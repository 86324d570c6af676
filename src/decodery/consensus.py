"""Chooses among the completions of a prompt once they are generated.

A completion that does not satisfy its JSON schema is never chosen.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from decodery.errors import ParameterError
from decodery.outputs import Completion, RequestOutput

Completions = RequestOutput | Sequence[Completion]
Utility = Callable[[str, str], float]

_ORDERS = range(1, 7)


@dataclass(frozen=True, slots=True)
class Consensus:
    """Holds the completion that agrees best with all of them, and its mean utility against them."""

    completion: Completion
    expected_utility: float


@dataclass(frozen=True, slots=True)
class Vote:
    """Holds the answer that most completions give, and one completion that gives it.

    `votes` counts the completions with this answer and `abstained` those without any; `share` is the votes'
    share of all completions.
    """

    answer: Hashable
    completion: Completion
    votes: int
    share: float
    abstained: int


def minimum_bayes_risk(completions: Completions, utility: Utility | None = None) -> Consensus:
    """Returns the completion with the highest expected utility.

    Each completion is a candidate, and all completions, the candidate included, are its references (Eikema
    and Aziz 2020, section 6). `utility(candidate, reference)` rates one text given that the other is right;
    the default is `overlap`. It is called once for each pair. Of equal completions the first is returned.
    Raises `ParameterError` without completions.
    """
    listed = _listed("minimum_bayes_risk", completions)
    texts = [completion.text for completion in listed]
    pairs = _overlaps(texts) if utility is None else [[utility(a, b) for b in texts] for a in texts]
    # Summed exactly, so that equal utilities in another order stay equal.
    expected = [math.fsum(row) / len(row) for row in pairs]
    best = max(range(len(listed)), key=expected.__getitem__)
    return Consensus(listed[best], expected[best])


def overlap(candidate: str, reference: str) -> float:
    """Returns the overlap of two texts, from 0 to 1: the mean F1 of their character n-grams, n from 1 to 6.

    As in chrF (Popovic 2015), whitespace is ignored and n-grams longer than both texts are left out.
    Precision and recall have the same weight, so the overlap is symmetric. That of two empty texts is 1.
    """
    return _overlaps([candidate, reference])[0][1]


def self_consistency(completions: Completions, extract: Callable[[str], Hashable | None]) -> Vote:
    """Returns the answer that most completions give (Wang et al. 2022).

    `extract` returns the answer in a text, or None if there is none; such a completion abstains. Of answers
    with the same number of votes the one that occurs first wins. The completion of the vote is the likeliest
    with this answer if all of those have log-probabilities, and otherwise the first. Raises `ParameterError`
    without completions, when none answers, or when `extract` fails.
    """
    listed = _listed("self_consistency", completions)
    answers = [_answer(extract, completion) for completion in listed]
    counts = Counter(answer for answer in answers if answer is not None)
    if not counts:
        raise ParameterError(
            f"self_consistency: extract found an answer in none of {len(listed)} completions"
        )
    answer, votes = max(counts.items(), key=lambda item: item[1])
    agreeing = [c for c, given in zip(listed, answers, strict=True) if given == answer]
    if all(c.cumulative_logprob is not None for c in agreeing):
        agreeing = best_of(agreeing, 1)
    return Vote(answer, agreeing[0], votes, votes / len(listed), len(listed) - counts.total())


def best_of(completions: Completions, n: int) -> list[Completion]:
    """Returns the `n` completions with the highest sum of log-probabilities, the likeliest first.

    As with `best_of` in vLLM and the OpenAI API the sum is not divided by the length, so a short text has an
    advantage. Equal completions keep their order. Each completion keeps its index. Raises `ParameterError`
    without log-probabilities, or when there are fewer than `n`.
    """
    listed = _listed("best_of", completions)
    if not 1 <= n <= len(listed):
        raise ParameterError(f"best_of: cannot return {n} of {len(listed)} completions")
    if any(completion.cumulative_logprob is None for completion in listed):
        raise ParameterError("best_of compares log-probabilities: generate with logprobs=0 or more")
    return sorted(listed, key=_likelihood, reverse=True)[:n]


def _likelihood(completion: Completion) -> float:
    return completion.cumulative_logprob or 0.0


def _listed(name: str, completions: Completions) -> list[Completion]:
    listed = completions.completions if isinstance(completions, RequestOutput) else completions
    if not listed:
        raise ParameterError(f"{name}: there are no completions to choose from")
    valid = [completion for completion in listed if completion.finish_reason != "invalid"]
    if not valid:
        raise ParameterError(f"{name}: no completion satisfies its JSON schema")
    return valid


def _answer(extract: Callable[[str], Any], completion: Completion) -> Hashable | None:
    try:
        answer: Hashable | None = extract(completion.text)
        hash(answer)
    except Exception as error:  # The caller's function may raise anything.
        what = f"{type(error).__name__}: {error}"
        raise ParameterError(
            f"self_consistency: extract failed on completion {completion.index}: {what}"
        ) from error
    return answer


def _overlaps(texts: Sequence[str]) -> list[list[float]]:
    """Returns the overlap of each text with each."""
    profiles = [_profile(text) for text in texts]
    table = [[1.0] * len(texts) for _ in texts]
    for i, first in enumerate(profiles):
        for j, second in enumerate(profiles[:i]):
            table[i][j] = table[j][i] = _agreement(first, second)
    return table


def _profile(text: str) -> list[Counter[str]]:
    """Returns the number of occurrences of each character n-gram of a text, by n."""
    letters = "".join(text.split())
    return [Counter(letters[k : k + n] for k in range(len(letters) - n + 1)) for n in _ORDERS]


def _agreement(first: Sequence[Counter[str]], second: Sequence[Counter[str]]) -> float:
    """Returns the mean F1 of two profiles over the n for which at least one of them has n-grams."""
    found = []
    for a, b in zip(first, second, strict=True):
        if total := a.total() + b.total():
            found.append(2 * (a & b).total() / total)
    return sum(found) / len(found) if found else 1.0
