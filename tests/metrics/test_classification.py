"""Tests accuracy, precision, recall, F1, Matthews' coefficient and Cohen's kappa."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from decodery.errors import ParameterError
from decodery.metrics import Score, accuracy, cohen_kappa, f1, matthews, precision, recall

GOLD = ["cat", "cat", "dog", "dog", "dog", "fish"]
SAID = ["cat", "dog", "dog", "dog", "cat", "dog"]


def drawn() -> Iterator[tuple[list[int], list[int]]]:
    """Yields 200 pairs of lists of labels."""
    for seed in range(200):
        draw = random.Random(seed)
        samples, labels = draw.randint(1, 60), draw.randint(1, 6)
        gold = [draw.randrange(labels) for _ in range(samples)]
        yield gold, [one if draw.random() < 0.6 else draw.randrange(labels) for one in gold]


def library(function: Callable[..., Any], *arguments: Any, **options: Any) -> float:
    """Returns the number of a function of scikit-learn, without its warnings about undefined cases."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(function(*arguments, **options))


def test_hand_counted_labels() -> None:
    # cat: 1 hit of 2 gold and 2 said; dog: 2 of 3 and 4; fish: 0 of 1 and 0.
    assert accuracy(GOLD, SAID).value == 3 / 6
    assert f1(GOLD, SAID).value == pytest.approx((2 / 4 + 4 / 7 + 0) / 3)
    assert f1(GOLD, SAID, average="weighted").value == pytest.approx((2 * 2 / 4 + 3 * 4 / 7 + 0) / 6)
    assert f1(GOLD, SAID, average="micro").value == 3 / 6
    assert f1(GOLD, SAID, average="binary", positive="dog").value == pytest.approx(4 / 7)
    assert recall(GOLD, SAID).value == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert precision(GOLD, SAID, average="binary", positive="dog").value == 2 / 4


@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("ours", [precision, recall, f1])
def test_averages_equal_the_library(ours: Callable[..., Score], average: str) -> None:
    from sklearn import metrics

    theirs = getattr(metrics, f"{ours.__name__}_score")
    for gold, said in drawn():
        score = ours(gold, said, average=average)
        expected = library(theirs, gold, said, average=average, zero_division=np.nan)
        if score.value is None:  # The library gives 0 where all labels with a precision weigh 0.
            assert (ours, average, expected) == (precision, "weighted", 0)
            assert not set(gold) & set(said)
            continue
        assert score.value == pytest.approx(expected, abs=1e-12)


def test_a_stated_label_set_equals_the_library() -> None:
    from sklearn.metrics import f1_score

    for gold, said in drawn():
        score = f1(gold, said, labels=[0, 1, 7])
        expected = library(f1_score, gold, said, labels=[0, 1, 7], average="macro", zero_division=np.nan)
        if score.value is None:
            assert not {0, 1} & {*gold, *said}
            assert score.undefined == 3
        else:
            assert score.value == pytest.approx(expected, abs=1e-12)
            assert score.undefined == sum(label not in {*gold, *said} for label in (0, 1, 7))


def test_accuracy_matthews_and_kappa_equal_the_library() -> None:
    from sklearn.metrics import accuracy_score, cohen_kappa_score, matthews_corrcoef

    for gold, said in drawn():
        assert accuracy(gold, said).value == pytest.approx(accuracy_score(gold, said))
        coefficient, kappa = matthews(gold, said), cohen_kappa(gold, said)
        if coefficient.value is None:
            assert len(set(gold)) == 1 or len(set(said)) == 1
        else:
            assert coefficient.value == pytest.approx(matthews_corrcoef(gold, said), abs=1e-12)
        if kappa.value is None:
            assert len({*gold, *said}) == 1
        else:
            assert kappa.value == pytest.approx(library(cohen_kappa_score, gold, said), abs=1e-12)


def test_the_label_set_is_stated_beside_the_number() -> None:
    assert f1(GOLD, SAID).settings == "macro average over 3 labels of the data: cat, dog, fish"
    assert f1(GOLD, SAID, labels=["dog", "cat"]).settings == "macro average over 2 labels given: dog, cat"
    assert f1(GOLD, SAID, average="binary", positive="dog").settings == "positive label dog"
    many = list(range(40))
    assert f1(many, many).settings.endswith("7, 8, 9, ...")


def test_a_label_without_a_value_is_counted_and_is_not_0() -> None:
    # fish is never predicted.
    score = precision(GOLD, SAID)
    assert score.value == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert score.undefined == 1
    none = precision(["no", "yes"], ["no", "no"], average="binary", positive="yes")
    assert (none.value, none.error, none.undefined) == (None, None, 1)
    assert recall(["no", "no"], ["no", "yes"], average="binary", positive="yes").value is None
    assert f1(["no"], ["no"], average="binary", positive="yes").value is None


def test_no_answer_is_wrong_counted_and_no_label() -> None:
    score = accuracy(["a", "b"], ["a", None])
    assert score.value == 0.5
    assert score.settings == "1 without an answer, counted as wrong"
    averaged = f1(["a", "b", "b"], ["a", "b", None])
    assert averaged.value == pytest.approx((1 + 2 / 3) / 2)
    assert "over 2 labels" in averaged.settings
    assert "1 without an answer" in averaged.settings
    assert accuracy(["a", "b"], [None, None]).value == 0.0
    with pytest.raises(ParameterError, match=r"^gold\[1\] is None"):
        accuracy(["a", None], ["a", "b"])
    with pytest.raises(ParameterError, match=r"^other holds None"):
        cohen_kappa(["a", "b"], ["a", None])


@pytest.mark.parametrize(
    ("gold", "predicted"),
    [([1, 0], ["1", "0"]), (["1", "0"], [1, 0]), ([1, 0], [1, "0"]), ([True], ["True"]), (["a"], [("a",)])],
)
@pytest.mark.parametrize("measure", [accuracy, f1, matthews, cohen_kappa])
def test_labels_of_different_kinds_are_an_error_and_never_a_zero(
    measure: Callable[..., Score], gold: list[Any], predicted: list[Any]
) -> None:
    with pytest.raises(ParameterError, match=r"they are never equal$"):
        measure(gold, predicted)
    with pytest.raises(ParameterError, match=r"they are never equal$"):
        f1([0, 1], [0, 1], average="binary", positive="1")
    with pytest.raises(ParameterError, match=r"they are never equal$"):
        f1([0, 1], [0, 1], labels=["0", "1"])


def test_numbers_of_python_numpy_and_torch_are_equal_labels() -> None:
    expected = f1([0, 1, 1], [0, 1, 0])
    assert f1(np.array([0, 1, 1]), [0, 1, 0]) == expected  # type: ignore[arg-type]
    assert f1(torch.tensor([0, 1, 1]), np.array([0, 1, 0])) == expected  # type: ignore[arg-type]
    assert f1([False, True, True], [0, 1, 0]).value == expected.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"average": "mean"}, "average must be one of macro, micro, weighted, binary"),
        ({"average": "binary"}, "positive names the label"),
        ({"positive": "cat"}, "positive names the label"),
        ({"average": "binary", "positive": "cow", "labels": ["cat", "dog"]}, "positive is not among"),
        ({"labels": ["cat", "cat"]}, "labels names a label twice"),
        ({"labels": []}, "labels is empty"),
        ({"labels": ["cat", None]}, "labels holds None"),
    ],
)
@pytest.mark.parametrize("measure", [precision, recall, f1])
def test_averages_without_meaning_are_errors(
    measure: Callable[..., Score], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        measure(GOLD, SAID, **options)


@pytest.mark.parametrize("gold", [[1, 1, 1], [1, 0, 1]])
def test_one_label_only_has_no_correlation_and_no_agreement_beyond_chance(gold: list[int]) -> None:
    undefined = matthews(gold, [1, 1, 1])
    assert undefined == Score(None, None, "correlation", 0, 3)
    assert cohen_kappa([1, 1, 1], [1, 1, 1]) == Score(None, None, "kappa", 0, 3)


@pytest.mark.parametrize("measure", [f1, matthews, cohen_kappa])
def test_the_error_is_the_spread_over_samples_of_the_same_population(
    measure: Callable[..., Score],
) -> None:
    draw = random.Random(5)

    def sample() -> Score:
        gold = [draw.randrange(3) for _ in range(150)]
        return measure(gold, [one if draw.random() < 0.7 else draw.randrange(3) for one in gold])

    scores = [sample() for _ in range(400)]
    spread = float(np.std([score.value for score in scores], ddof=1))
    assert np.mean([score.error for score in scores]) == pytest.approx(spread, rel=0.1)


def test_copies_of_samples_in_groups_leave_the_error_as_it_is() -> None:
    plain = f1(GOLD, SAID, labels=["cat", "dog"])
    tripled = f1(GOLD * 3, SAID * 3, labels=["cat", "dog"], groups=[*range(6)] * 3)
    assert tripled.value == plain.value
    assert tripled.error == pytest.approx(plain.error)
    assert f1(GOLD * 3, SAID * 3, labels=["cat", "dog"]).error < plain.error  # type: ignore[operator]
