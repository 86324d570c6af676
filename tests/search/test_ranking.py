from __future__ import annotations

import sys

import numpy as np
import pytest

from decodery.encoding.vectors.vector_settings import Metric
from decodery.errors import DecoderyError
from decodery.search.extras import extra
from decodery.search.keywords import Keywords, words
from decodery.search.ranking import fused, highest, prepared, similarities

METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean", "manhattan")


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_similarities_are_those_of_the_formula(metric: Metric) -> None:
    x, q = drawn(50, 33).astype(np.float64), drawn(33).astype(np.float64)
    expected = {
        "cosine": x @ q / np.linalg.norm(x, axis=1) / np.linalg.norm(q),
        "dot": x @ q,
        "euclidean": -np.linalg.norm(x - q, axis=1),
        "manhattan": -np.abs(x - q).sum(axis=1),
    }[metric]
    vectors, query = prepared(x.astype(np.float32), metric), prepared(q.astype(np.float32)[None], metric)[0]
    np.testing.assert_allclose(similarities(vectors, query, metric), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("width", [1, 7, 384])
def test_a_score_has_the_same_bits_whatever_the_other_vectors_are(metric: Metric, width: int) -> None:
    vectors, query = prepared(drawn(301, width), metric), prepared(drawn(1, width), metric)[0]
    scores = similarities(vectors, query, metric)
    for part in (slice(0, 1), slice(5, 6), slice(3, 300), slice(100, 117), slice(None, None, -1)):
        block = np.ascontiguousarray(vectors[part])
        assert np.array_equal(similarities(block, query, metric), scores[part])


def test_a_vector_of_zeros_has_the_cosine_zero() -> None:
    vectors = prepared(np.zeros((2, 4), np.float32), "cosine")
    assert similarities(vectors, vectors[0], "cosine").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("scores", "count", "places"),
    [
        ([1, 3, 2], 2, [1, 2]),
        ([1, 3, 2], 9, [1, 2, 0]),
        ([2, 2, 2, 3, 2], 3, [3, 0, 1]),
        ([], 4, []),
        ([0, -1], 0, []),
    ],
)
def test_the_highest_scores_come_first_and_equal_ones_in_their_order(
    scores: list[float], count: int, places: list[int]
) -> None:
    assert highest(np.array(scores, np.float32), count).tolist() == places


def test_fused_rankings_add_reciprocal_ranks() -> None:
    assert fused([[7, 8], [8]]) == {7: 1 / 61, 8: 1 / 62 + 1 / 61}


def test_words_are_of_any_language_and_in_lower_case() -> None:
    assert words("Top_K=5, Straße don't 猫と犬 a") == [*("top_k", "5", "strasse", "don", "t"), *"猫と犬", "a"]


def test_keywords_score_by_the_formula_of_bm25() -> None:
    pytest.importorskip("bm25s")
    texts = ["a cat", "a dog and a cat", "the dog sleeps here"]
    keywords = Keywords(texts)
    lengths = [len(words(text)) for text in texts]
    idf = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    expected = [
        idf * (count / (count + 1.5 * (0.25 + 0.75 * length / np.mean(lengths))))
        for count, length in zip([0, 1, 1], lengths, strict=True)
    ]
    np.testing.assert_allclose(keywords.scores("DOG unknown"), expected, rtol=1e-5)
    assert keywords.scores("unknown").tolist() == [0, 0, 0]
    assert Keywords([]).scores("a").tolist() == Keywords([""]).scores("a").tolist()[1:] == []


def test_a_missing_library_is_an_error_that_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(
        DecoderyError, match=r'grouping needs scikit-learn: run pip install "decodery\[search\]"'
    ):
        extra("sklearn.cluster", "grouping")
