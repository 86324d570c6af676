"""Tests the laws of all metrics about input that cannot be measured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from decodery import metrics
from decodery.errors import ParameterError
from tests.metrics.vectors import letters

# Each metric of two lists with valid ones, and the names of its arguments.
PAIRED: dict[str, tuple[Callable[..., Any], list[Any], list[Any], str, str]] = {
    "accuracy": (metrics.accuracy, ["a", "b", "a"], ["a", "a", "a"], "gold", "predicted"),
    "precision": (metrics.precision, [1, 0, 1], [1, 1, 1], "gold", "predicted"),
    "recall": (metrics.recall, [1, 0, 1], [1, 1, 1], "gold", "predicted"),
    "f1": (metrics.f1, [1, 0, 1], [1, 1, 0], "gold", "predicted"),
    "matthews": (metrics.matthews, [1, 0, 1], [1, 1, 0], "gold", "predicted"),
    "cohen_kappa": (metrics.cohen_kappa, [1, 0, 1], [1, 1, 0], "one", "other"),
    "exact_match": (metrics.exact_match, ["x", ["y", "z"]], ["x", "z"], "gold", "predicted"),
    "token_f1": (metrics.token_f1, ["x", ["y", "z"]], ["x", "z"], "gold", "predicted"),
    "rouge": (metrics.rouge, ["a b", "c d"], ["a b", ["c", "d"]], "predictions", "references"),
    "bleu": (metrics.bleu, ["a b", "c d"], [["a b"], ["c", "d"]], "predictions", "references"),
    "chrf": (metrics.chrf, ["a b", "c d"], [["a b"], ["c", "d"]], "predictions", "references"),
    "bert_score": (
        lambda one, other: metrics.bert_score(one, other, letters),
        ["a b", "c d"],
        ["a b", ["c", "d"]],
        "predictions",
        "references",
    ),
    "pearson": (metrics.pearson, [1.0, 2.0, 4.0], [1.0, 3.0, 2.0], "one", "other"),
    "spearman": (metrics.spearman, [1.0, 2.0, 4.0], [1.0, 3.0, 2.0], "one", "other"),
    "ndcg": (metrics.ndcg, [1.0, 0.0, 2.0], [0.5, 0.2, 0.1], "gains", "scores"),
    "calibration": (metrics.calibration, [0.5, 0.2, 0.9], [True, False, True], "confidences", "right"),
    "brier": (metrics.brier, [0.5, 0.2, 0.9], [True, False, True], "confidences", "outcomes"),
    "brier_multiclass": (metrics.brier_multiclass, [[0.5, 0.5], [1.0, 0.0]], [0, 1], "rows", "gold"),
    "perplexity": (metrics.perplexity, [-1.0, -2.0], [3, 4], "logprobs", "lengths"),
    "bits_per_byte": (metrics.bits_per_byte, [-1.0, -2.0], ["abc", 4], "logprobs", "sources"),
    "bootstrap": (metrics.bootstrap, [1.0, 0.0, 1.0], [0.5, 1.0, 1.0], "one", "other"),
    "mcnemar": (metrics.mcnemar, [True, False, True], [True, True, True], "one", "other"),
}
NUMERIC = ("pearson", "spearman", "ndcg", "calibration", "brier", "perplexity", "bits_per_byte", "bootstrap")

paired = pytest.mark.parametrize("name", PAIRED)


def refused(measure: Callable[..., Any], one: Any, other: Any) -> str:
    """Returns the argument that the error of a call names."""
    with pytest.raises(ParameterError) as caught:
        measure(one, other)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(caught.value.param)), message
    return str(caught.value.param)


@paired
def test_valid_input_has_a_value_and_a_unit(name: str) -> None:
    measure, one, other, _, _ = PAIRED[name]
    result = measure(one, other)
    for score in result.values() if isinstance(result, dict) else [result]:
        assert isinstance(score.value, float) or (name == "rouge" and score.undefined)
        assert isinstance(score, metrics.Difference) or score.unit


@paired
def test_a_metric_on_nothing_is_an_error_that_names_the_argument(name: str) -> None:
    measure, one, other, first, second = PAIRED[name]
    assert refused(measure, [], []) in (first, second)
    assert refused(measure, [], other) == first
    assert refused(measure, one, []) == second


@paired
def test_lists_of_different_lengths_are_an_error_and_never_cut(name: str) -> None:
    measure, one, other, first, second = PAIRED[name]
    assert refused(measure, [*one, one[0]], other) in (first, second)
    assert refused(measure, one, [*other, other[0]]) in (first, second)


@paired
@pytest.mark.parametrize("wrong", ["abc", {"a": 1}, {1, 2, 3}, None, 5], ids=repr)
def test_what_is_no_list_is_an_error(name: str, wrong: object) -> None:
    measure, one, other, first, second = PAIRED[name]
    assert refused(measure, wrong, other) == first
    assert refused(measure, one, wrong) == second


@pytest.mark.parametrize("name", [*NUMERIC, "accuracy", "f1", "matthews", "cohen_kappa"])
def test_nan_is_an_error_in_either_list(name: str) -> None:
    measure, one, other, first, second = PAIRED[name]
    assert refused(measure, [*one[:-1], math.nan], other) == f"{first}[{len(one) - 1}]"
    if name not in ("calibration", "brier"):
        assert refused(measure, one, [*other[:-1], math.nan]) == f"{second}[{len(other) - 1}]"


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("wrong", ["1", object(), [1.0], 1j], ids=lambda wrong: type(wrong).__name__)
def test_what_is_no_number_is_an_error(name: str, wrong: object) -> None:
    measure, one, other, first, _ = PAIRED[name]
    assert refused(measure, [*one[:-1], wrong], other) == f"{first}[{len(one) - 1}]"


@pytest.mark.parametrize("name", [name for name in NUMERIC if name != "bootstrap"])
@pytest.mark.parametrize("truth", [True, np.True_], ids=repr)
def test_a_truth_value_is_no_number(name: str, truth: object) -> None:
    measure, one, other, first, _ = PAIRED[name]
    assert refused(measure, [truth, *one[1:]], other) == f"{first}[0]"


@pytest.mark.parametrize("name", [name for name in PAIRED if name not in ("bleu", "chrf", "rouge")])
def test_one_sample_has_no_error(name: str) -> None:
    measure, one, other, _, _ = PAIRED[name]
    assert measure(one[:1], other[:1]).error is None


@pytest.mark.parametrize("name", [name for name in PAIRED if name not in ("ndcg", "mcnemar", "bert_score")])
def test_groups_must_name_a_group_for_each_sample(name: str) -> None:
    measure, one, other, _, _ = PAIRED[name]
    with pytest.raises(ParameterError, match=r"^groups has 1 entries"):
        measure(one, other, groups=["a"])


def test_every_public_name_is_documented() -> None:
    for name in metrics.__all__:
        assert getattr(metrics, name).__doc__
