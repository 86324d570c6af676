from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decodery.consensus import best_of, minimum_bayes_risk, overlap, self_consistency
from decodery.decoding.chosen import TokenLogprobs
from decodery.errors import ParameterError
from decodery.outputs import Completion, RequestOutput

TEXTS = st.text("ab c", max_size=9)


def completions(texts: list[str], sums: list[float | None] | None = None) -> list[Completion]:
    return [
        Completion(i, text, [1], "length", logprobs=None if s is None else [TokenLogprobs(1, s, 1, ())])
        for i, (text, s) in enumerate(zip(texts, sums or [None] * len(texts), strict=True))
    ]


def output(listed: list[Completion]) -> RequestOutput:
    return RequestOutput("", [0], listed, 0)


def test_a_completion_that_breaks_its_schema_is_never_chosen() -> None:
    listed = completions(["a", "a", "b"], [-1.0, -2.0, -3.0])
    listed[0].finish_reason = listed[1].finish_reason = "invalid"
    assert minimum_bayes_risk(listed).completion is listed[2]
    assert self_consistency(listed, str).completion is listed[2]
    assert best_of(listed, 1) == [listed[2]]
    with pytest.raises(ParameterError, match="no completion satisfies its JSON schema"):
        best_of(listed[:2], 1)


@given(TEXTS, TEXTS)
def test_overlap_is_the_mean_f1_of_the_character_n_grams(first: str, second: str) -> None:
    a, b = first.replace(" ", ""), second.replace(" ", "")
    scores = []
    for n in range(1, 7):
        x = Counter(a[i : i + n] for i in range(len(a) - n + 1))
        y = Counter(b[i : i + n] for i in range(len(b) - n + 1))
        if x or y:
            common = sum((x & y).values())
            precision, recall = common / max(sum(x.values()), 1), common / max(sum(y.values()), 1)
            scores.append(2 * precision * recall / (precision + recall) if common else 0.0)
    assert overlap(first, second) == pytest.approx(sum(scores) / len(scores) if scores else 1.0)


@given(TEXTS, TEXTS)
def test_overlap_is_symmetric_and_a_text_shares_all_with_itself(first: str, second: str) -> None:
    assert overlap(first, second) == overlap(second, first)
    assert overlap(first, first) == 1
    assert 0 <= overlap(first, second) <= 1


@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_the_consensus_has_the_highest_mean_utility_and_is_the_first_of_equals(texts: list[str]) -> None:
    found = minimum_bayes_risk(completions(texts))
    means = [math.fsum(overlap(a, b) for b in texts) / len(texts) for a in texts]
    assert found.expected_utility == max(means)
    assert found.completion.index == means.index(max(means))


def test_the_consensus_follows_a_utility_of_ones_own() -> None:
    asked = []

    def longer(candidate: str, reference: str) -> float:
        asked.append((candidate, reference))
        return float(len(candidate) > len(reference))

    listed = completions(["a", "abc", "ab"])
    found = minimum_bayes_risk(output(listed), longer)
    assert found.completion is listed[1]
    assert found.expected_utility == 2 / 3
    assert asked[:3] == [("a", "a"), ("a", "abc"), ("a", "ab")]


def last_word(text: str) -> str | None:
    return text.split()[-1] if text else None


def test_the_majority_wins_and_its_likeliest_text_is_returned() -> None:
    listed = completions(
        ["so 4", "thus 5", "hence 4", "5", "I say 5", ""], [-1.0, -3.0, -0.1, -2.0, -9.0, 0.0]
    )
    found = self_consistency(listed, last_word)
    assert (found.answer, found.votes, found.share, found.abstained) == ("5", 3, 0.5, 1)
    assert found.completion is listed[3]


def test_of_equal_votes_the_answer_given_first_wins() -> None:
    found = self_consistency(completions(["5", "4", "4", "5"]), last_word)
    assert (found.answer, found.completion.index) == ("5", 0)


def test_an_answer_that_is_false_is_still_an_answer() -> None:
    assert self_consistency(completions(["0", "0", "7"]), int).answer == 0


def test_without_all_log_probabilities_the_first_of_the_majority_is_returned() -> None:
    listed = completions(["4", "4"], [None, -0.1])
    assert self_consistency(listed, last_word).completion is listed[0]


def test_the_best_are_the_likeliest_in_order_and_of_equals_the_first() -> None:
    listed = completions(["a", "b", "c", "d"], [-3.0, -1.0, -2.0, -1.0])
    assert [c.index for c in best_of(output(listed), 3)] == [1, 3, 2]
    assert [c.index for c in listed] == [0, 1, 2, 3]


def unhashable(text: str) -> Any:
    return [text]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimum_bayes_risk([]), "minimum_bayes_risk: there are no completions"),
        (lambda: self_consistency(output([]), last_word), "self_consistency: there are no completions"),
        (lambda: best_of([], 1), "best_of: there are no completions"),
        (lambda: best_of(completions(["a"], [0.0]), 2), "best_of: cannot return 2 of 1"),
        (lambda: best_of(completions(["a"], [0.0]), 0), "best_of: cannot return 0 of 1"),
        (lambda: best_of(completions(["a", "b"], [0.0, None]), 1), "logprobs"),
        (lambda: self_consistency(completions(["", ""]), last_word), "in none of 2 completions"),
        (lambda: self_consistency(completions(["1", "x"]), int), "failed on completion 1: ValueError"),
        (lambda: self_consistency(completions(["1"]), unhashable), "failed on completion 0: TypeError"),
    ],
)
def test_what_cannot_be_chosen_is_one_clear_error(call: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)
