"""Tests exact match and F1 of words."""

from __future__ import annotations

import random

import pytest

from decodery.errors import ParameterError
from decodery.metrics import exact_match, token_f1
from decodery.metrics.short_answers import normalise


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel Tower!", "eiffel tower"),
        ("  a  cat\tand an  owl ", "cat and owl"),
        ("U.S.A.", "usa"),
        ("theatre", "theatre"),
        ("don't", "dont"),
        ("Été", "été"),
        ("A", "a"),
        ("The", "the"),
        ("?", "?"),
        ("a.", "a."),
        ("", ""),
    ],
)
def test_articles_punctuation_and_case_do_not_count_unless_nothing_is_left(text: str, expected: str) -> None:
    assert normalise(text) == expected


@pytest.mark.parametrize(
    ("gold", "predicted", "exact", "f1"),
    [
        ("the cat", "Cat.", 1, 1),
        ("big red cat", "the red cat", 0, 0.8),
        (["dog", "red cat"], "cat", 0, 2 / 3),
        ("cat", "", 0, 0),
        ("", "", 1, 1),
        ("", "cat", 0, 0),
        ("cat cat", "cat", 0, 2 / 3),
        ("A", "B", 0, 0),
        ("A", "", 0, 0),
        ("caf\u00e9", "cafe\u0301", 1, 1),
        ("cat", None, 0, 0),
    ],
)
def test_hand_counted_answers(gold: str | list[str], predicted: str | None, exact: float, f1: float) -> None:
    assert exact_match([gold], [predicted]).value == exact
    assert token_f1([gold], [predicted]).value == pytest.approx(f1)


def test_exact_text_compares_every_character() -> None:
    assert exact_match(["cat", "cat"], ["cat", "Cat"], normalised=False).value == 0.5
    assert exact_match(["cat"], ["Cat"], normalised=False).settings == "exact text"


def test_no_answer_is_wrong_and_counted() -> None:
    score = token_f1(["cat", "dog"], ["cat", None])
    assert (score.value, score.counted) == (0.5, 2)
    assert score.settings == "SQuAD normalisation; 1 without an answer, counted as wrong"


@pytest.mark.parametrize(
    ("gold", "predicted", "message"),
    [
        ([[]], ["x"], r"gold\[0\] is empty"),
        ([["x", 3]], ["x"], r"gold\[0\]\[1\] must be a text"),
        ([None], ["x"], r"gold\[0\] must be a list"),
        (["x"], [3], r"predicted\[0\] must be a text, or None"),
    ],
)
def test_answers_that_are_no_texts_are_an_error(
    gold: list[object], predicted: list[object], message: str
) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        exact_match(gold, predicted)  # type: ignore[arg-type]


def test_f1_is_symmetric_between_0_and_1_and_1_for_equal_words() -> None:
    for seed in range(200):
        draw = random.Random(seed)
        one, other = (
            " ".join(draw.choices(["cat", "dog", "red", "big"], k=draw.randint(1, 6))) for _ in "ab"
        )
        score = token_f1([one], [other]).value
        assert score == token_f1([other], [one]).value
        assert score is not None
        assert 0 <= score <= 1
        assert (score == 1) == (sorted(one.split()) == sorted(other.split()))
