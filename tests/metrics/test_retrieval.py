"""Tests average precision, reciprocal rank, recall@k, nDCG and their means over queries."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest

from decodery.errors import ParameterError
from decodery.metrics import (
    Score,
    average_precision,
    ndcg,
    ndcg_of_ranking,
    over_queries,
    recall_at_k,
    reciprocal_rank,
)

METRICS: dict[str, Callable[..., Score]] = {
    "AP": average_precision,
    "RR": reciprocal_rank,
    "recall@2": partial(recall_at_k, k=2),
    "recall@4": partial(recall_at_k, k=4),
    "nDCG": ndcg_of_ranking,
    "nDCG@3": partial(ndcg_of_ranking, k=3),
    "nDCG, exponential": partial(ndcg_of_ranking, gain="exponential"),
}
each = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def test_hand_counted_rankings() -> None:
    # Relevant at places 1 and 3 of 4; a third relevant document is not ranked.
    relevant, ranked = {"a", "c", "z"}, ["a", "b", "c", "d"]
    assert average_precision(relevant, ranked).value == pytest.approx((1 / 1 + 2 / 3) / 3)
    assert reciprocal_rank(relevant, ranked).value == 1.0
    assert reciprocal_rank({"c"}, ranked).value == pytest.approx(1 / 3)
    assert recall_at_k(relevant, ranked, 2).value == pytest.approx(1 / 3)
    assert recall_at_k(relevant, ranked, 100).value == pytest.approx(2 / 3)
    assert ndcg([0, 1, 1], [3, 2, 1]).value == pytest.approx(
        (1 / math.log2(3) + 1 / math.log2(4)) / (1 + 1 / math.log2(3))
    )


def test_a_document_found_of_three_is_not_all() -> None:
    assert average_precision({"a", "b", "c"}, ["a"]).value == pytest.approx(1 / 3)


def test_linear_and_exponential_gains_differ_and_are_named() -> None:
    linear, exponential = ndcg([3, 2, 1], [1, 2, 3]), ndcg([3, 2, 1], [1, 2, 3], gain="exponential")
    assert linear.value == pytest.approx(0.7900, abs=1e-4)
    assert exponential.value == pytest.approx(0.6806, abs=1e-4)
    assert linear.settings == "linear gain, all places, expected value over ties"
    assert ndcg([1], [1], k=3, gain="exponential").settings.startswith("exponential gain, k=3")


def test_equal_scores_give_the_expected_value_over_their_orders() -> None:
    assert ndcg([10, 0, 0, 1, 5], [1, 1, 1, 1, 1]).value == pytest.approx(0.6910, abs=1e-4)
    tied = {"b": 0.5, "a": 0.5}
    assert average_precision({"b"}, tied).value == pytest.approx((1 + 1 / 2) / 2)
    assert reciprocal_rank({"b"}, tied).value == pytest.approx((1 + 1 / 2) / 2)
    assert recall_at_k({"b"}, tied, 1).value == 0.5
    assert average_precision({"b"}, {"b": 0.5, "c": 0.5}) == average_precision({"b"}, {"c": 0.5, "b": 0.5})


def orders(scores: Mapping[Any, float]) -> list[list[Any]]:
    """Returns all rankings in which no document stands before one of a higher score."""
    return [
        list(order)
        for order in permutations(scores)
        if all(scores[one] >= scores[other] for one, other in pairwise(order))
    ]


@each
def test_ties_equal_the_mean_over_all_orders(metric: Callable[..., Score]) -> None:
    for seed in range(60):
        draw = random.Random(seed)
        documents = list("abcdef"[: draw.randint(1, 6)])
        scores = {document: float(draw.randint(0, 2)) for document in documents}
        relevant = {
            document: float(draw.randint(-1, 3)) for document in [*documents, "x"] if draw.random() < 0.7
        }
        found = metric(relevant, scores).value
        every = [metric(relevant, order).value for order in orders(scores)]
        if found is None:
            assert not any(grade > 0 for grade in relevant.values())
            assert every == [None] * len(every)
        else:
            assert found == pytest.approx(np.mean(every), abs=1e-12)  # type: ignore[arg-type]


def test_ndcg_equals_the_library_with_ties_and_cutoffs() -> None:
    from sklearn.metrics import ndcg_score

    for seed in range(200):
        draw = random.Random(seed)
        count = draw.randint(2, 12)
        gains = [float(draw.randint(0, 3)) for _ in range(count)]
        scores = [float(draw.randint(0, 5)) for _ in range(count)]
        k = draw.choice([None, 1, 3, 20])
        found = ndcg(gains, scores, k).value
        assert (found is None) == (not any(gains))
        if found is not None:
            assert found == pytest.approx(ndcg_score([gains], [scores], k=k), abs=1e-12)


def test_average_precision_equals_the_library_where_all_are_ranked_without_ties() -> None:
    from sklearn.metrics import average_precision_score

    for seed in range(200):
        draw = random.Random(seed)
        truth = [draw.random() < 0.4 for _ in range(draw.randint(1, 12))] + [True]
        scores = [draw.random() for _ in truth]
        relevant = {index for index, one in enumerate(truth) if one}
        found = average_precision(relevant, dict(enumerate(scores))).value
        assert found == pytest.approx(average_precision_score(truth, scores))


def test_one_document_has_a_value() -> None:
    assert ndcg([2], [0.3]).value == 1.0


def test_a_document_that_is_not_ranked_counts_in_the_largest_gain() -> None:
    assert ndcg([1, 1], [0.5, None]).value == pytest.approx(1 / (1 + 1 / math.log2(3)))
    assert ndcg_of_ranking({"a": 1, "b": 1}, ["a"]).value == ndcg([1, 1], [0.5, None]).value
    assert ndcg([1, 1], [None, None]).value == 0.0


@each
def test_a_query_without_relevant_documents_is_undefined(metric: Callable[..., Score]) -> None:
    for relevant in ([], set(), {"a": 0}, {"a": -1}):
        for ranked in (["a", "b"], [], {"a": 0.3}):
            score = metric(relevant, ranked)
            assert (score.value, score.counted, score.undefined) == (None, 0, 1)
    assert ndcg([0, 0], [1, 2]).value is None


@each
def test_a_query_that_finds_nothing_is_0(metric: Callable[..., Score]) -> None:
    assert metric({"a"}, []).value == 0.0
    assert metric({"a"}, ["b", "c", "d"]).value == 0.0


QUERIES: dict[str, Any] = {"found": {"a"}, "none relevant": {"b": 0}, "missing": {"c"}}
RUN: dict[str, Any] = {"found": ["a", "b"], "none relevant": ["b"], "not judged": ["z"]}


def test_queries_that_are_missing_empty_or_not_judged_are_counted() -> None:
    score = over_queries(average_precision, QUERIES, RUN)
    assert (score.value, score.counted, score.undefined) == (0.5, 2, 1)
    assert score.error == pytest.approx(0.5)
    assert score.settings == (
        "3 judged queries; 1 of them missing from the run; 1 without relevant documents (left out); "
        "1 of the run not judged; expected value over ties"
    )


@each
def test_by_the_rule_of_trec_eval_a_query_without_relevant_documents_is_0(
    metric: Callable[..., Score],
) -> None:
    score = over_queries(metric, QUERIES, RUN, without_relevant="zero")
    assert score.value == pytest.approx(1 / 3)
    assert (score.counted, score.undefined) == (3, 0)
    assert "(zero)" in score.settings


@pytest.mark.parametrize(
    ("relevant", "run", "message"),
    [
        ({}, RUN, "relevant is empty"),
        ([], RUN, "relevant must be a mapping"),
        (QUERIES, [], "run must be a mapping"),
        ({1: {"a"}}, {"1": ["a"]}, "run has none of the judged queries, such as 1"),
    ],
)
def test_queries_that_cannot_be_compared_are_an_error(relevant: Any, run: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        over_queries(average_precision, relevant, run)


def test_an_empty_run_is_0_for_every_query() -> None:
    assert over_queries(average_precision, {"q": {"a"}}, {}).value == 0.0


@each
@pytest.mark.parametrize(
    ("relevant", "ranked", "message"),
    [
        ({"a"}, ["a", "b", "a"], "ranked has a document twice"),
        ({"a"}, {"a", "b"}, "ranked is a set"),
        ({"a"}, "ab", "ranked must be a collection"),
        ("ab", ["a"], "relevant must be a collection"),
        ({"a"}, {"a": math.nan}, r"ranked\['a'\] must be a finite number"),
        ({"a": math.nan}, ["a"], r"relevant\['a'\] must be a finite number"),
    ],
)
def test_rankings_without_an_order_are_errors(
    metric: Callable[..., Score], relevant: Any, ranked: Any, message: str
) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        metric(relevant, ranked)


@pytest.mark.parametrize(
    ("gains", "options", "message"),
    [
        ([1, -1], {}, "gains must be from 0 to 1000"),
        ([1, 2000], {}, "gains must be from 0 to 1000"),
        ([1, 1], {"k": 0}, "k must be a whole number of at least 1"),
        ([1, 1], {"k": 1.5}, "k must be a whole number"),
        ([1, 1], {"gain": "log"}, "gain must be one of linear, exponential"),
    ],
)
def test_gains_and_places_without_meaning_are_errors(
    gains: Sequence[float], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ParameterError, match=rf"^{message}"):
        ndcg(gains, [1, 2], **options)
    with pytest.raises(ParameterError, match=r"^k must be"):
        recall_at_k({"a"}, ["a"], 0)
