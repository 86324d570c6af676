"""Checks agreement and votes of several answers to one question."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decodery.errors import ParameterError
from decodery.evaluation.probes.consistency import agreement, majority, voted_score

ANSWERS = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=8)


@settings(deadline=None)
@given(st.lists(ANSWERS, min_size=1, max_size=6))
def test_agreement_is_the_share_of_equal_pairs(answers: list[list[str | None]]) -> None:
    shares = []
    for one in answers:
        pairs = list(combinations(one, 2))
        shares.append(sum(x is not None and x == y for x, y in pairs) / len(pairs))
    assert agreement(answers).value == pytest.approx(sum(shares) / len(shares))


def test_a_question_with_one_answer_is_undefined_and_counted() -> None:
    found = agreement([["a"], ["a", "a"], ["a", None]])
    assert (found.value, found.counted, found.undefined) == (0.5, 2, 1)
    assert agreement([["a"]]).value is None


def test_the_first_of_equal_votes_wins_and_the_tie_is_told() -> None:
    assert majority(["b", "a", "a", "b", None]) == ("b", True)
    assert majority(["b", "a", "a", None, None]) == ("a", False)
    assert majority([None, None]) == (None, False)


def test_the_vote_counts_not_the_samples() -> None:
    answers = [["1", "1", "2"], ["3", "4", "4"], [None, None, None]]
    found = voted_score(answers, lambda place, answer: float(answer == ["1", "3", "5"][place]))
    assert found.value == pytest.approx(1 / 3)
    assert found.counted == 3
    assert "ties 0, without an answer 1" in found.settings


def test_no_questions_are_refused() -> None:
    with pytest.raises(ParameterError, match="no questions"):
        agreement([])
