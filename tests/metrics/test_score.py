"""Tests means of samples and of scores, with their standard errors."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from decodery.errors import ParameterError
from decodery.metrics import Score, mean, mean_of_scores

QUESTIONS = [question for question in range(10) for _ in range(4)]
ALL_OR_NOTHING = [question % 2 for question in QUESTIONS]


def test_the_error_of_a_mean_has_n_minus_1() -> None:
    assert mean([1, 0, 1, 1]) == Score(0.75, 0.25, "fraction", 4)


def test_samples_of_one_question_count_once_in_the_error() -> None:
    assert mean(ALL_OR_NOTHING).error == pytest.approx(0.0801, abs=1e-4)
    grouped = mean(ALL_OR_NOTHING, groups=QUESTIONS)
    assert grouped.value == 0.5
    assert grouped.error == pytest.approx(1 / 6)
    # The same as the error of ten questions.
    assert grouped.error == pytest.approx(mean([question % 2 for question in range(10)]).error or 0)


def test_groups_of_one_sample_change_nothing() -> None:
    values = [0.2, 0.9, 0.4, 0.4, 0.0]
    assert mean(values, groups=range(5)) == mean(values)


def test_groups_may_come_in_any_order() -> None:
    order = list(range(40))
    random.Random(3).shuffle(order)
    shuffled = mean([ALL_OR_NOTHING[i] for i in order], groups=[f"q{QUESTIONS[i]}" for i in order])
    assert shuffled.error == pytest.approx(1 / 6)


def test_weights_change_the_value_and_the_error_of_the_same_estimator() -> None:
    score = mean([0.9, 0.1], weights=[90, 10])
    assert score.value == pytest.approx(0.82)
    assert score.error == pytest.approx(math.sqrt(2 * 2 * 7.2**2) / 100)
    assert mean([0.9, 0.1], weights=[3, 3]).error == pytest.approx(mean([0.9, 0.1]).error or 0)


def test_one_sample_or_one_group_has_no_error() -> None:
    assert mean([0.5]) == Score(0.5, None, "fraction", 1)
    assert mean([1, 0, 1], groups=["a", "a", "a"]).error is None


def test_a_sample_without_a_value_is_counted_and_is_not_0() -> None:
    assert mean([None, 1, 0]) == Score(0.5, 0.5, "fraction", 2, undefined=1)
    assert mean([None, None]) == Score(None, None, "fraction", 0, undefined=2)


def test_the_mean_does_not_depend_on_the_order_of_samples() -> None:
    values = [random.Random(1).random() * 10**power for power in range(-8, 9) for _ in range(20)]
    assert mean(values) == mean(values[::-1])


def test_arrays_and_truth_values_are_samples() -> None:
    assert mean(np.array([True, False, True, True])) == mean([1, 0, 1, 1])  # type: ignore[arg-type]
    assert mean(np.array([0.5, 1.5])).value == 1.0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"values": []}, "values is empty"),
        ({"values": [0.5, math.nan]}, r"values\[1\] must be a finite number"),
        ({"values": [math.inf]}, r"values\[0\] must be a finite number"),
        ({"values": ["1"]}, r"values\[0\] must be a finite number"),
        ({"values": "10"}, "values must be a list"),
        ({"values": {1, 2}}, "values must be a list"),
        ({"values": {"a": 1}}, "values must be a list"),
        ({"values": 3}, "values must be a list"),
        ({"values": [1, 0], "groups": ["a"]}, "groups has 1 entries and values 2"),
        ({"values": [1, 0], "groups": [[1], [2]]}, r"groups\[0\] must be"),
        ({"values": [1, 0], "weights": [1]}, "weights has 1 entries"),
        ({"values": [1, 0], "weights": [1, -1]}, "weights must be at least 0"),
        ({"values": [1, 0], "weights": [0, 0]}, "weights must be at least 0"),
        ({"values": [1, 0], "weights": [True, 1]}, r"weights\[0\] must be a finite number"),
    ],
)
def test_what_has_no_mean_is_one_error_that_names_the_argument(
    given: dict[str, object], message: str
) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}") as caught:
        mean(**given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert caught.value.param is not None


def parts() -> list[Score]:
    """Returns the scores of 90 samples, 81 of them right, and of 10, of which 1 is."""
    return [mean([1] * 81 + [0] * 9), mean([1] + [0] * 9)]


def test_parts_are_averaged_by_samples_or_alike_and_the_error_is_that_of_the_same_mean() -> None:
    big, small = (0.09 / 89, 0.09 / 9)  # Squared errors.
    weighted = mean_of_scores(parts())
    assert weighted.value == pytest.approx(0.82)
    assert weighted.error == pytest.approx(math.sqrt(0.81 * big + 0.01 * small))
    plain = mean_of_scores(parts(), weighted=False)
    assert plain.value == pytest.approx(0.5)
    assert plain.error == pytest.approx(math.sqrt(big + small) / 2)
    assert weighted.counted == plain.counted == 100
    assert weighted.settings != plain.settings


def test_a_part_without_a_value_or_an_error_is_not_taken_for_0() -> None:
    score = mean_of_scores([*parts(), mean([None, None])], weighted=False)
    assert score.value == pytest.approx(0.5)
    assert score.undefined == 2
    assert "1 without a value" in score.settings
    assert mean_of_scores([*parts(), mean([1])]).error is None
    assert mean_of_scores([mean([None])]).value is None


def test_scores_of_different_units_have_no_mean() -> None:
    with pytest.raises(ParameterError, match=r"^scores have different units: bits, fraction"):
        mean_of_scores([mean([1, 0]), mean([1, 0], unit="bits")])
    with pytest.raises(ParameterError, match=r"^scores is empty"):
        mean_of_scores([])
