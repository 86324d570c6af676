"""Tests the comparison of vectors and texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decodery import LLM, ParameterError
from tests.encoding.folders import sentence_folder

A = np.array([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], np.float32)
B = np.array([[2.0, 4.0, 4.0], [0.0, 5.0, 0.0]], np.float32)
RIGHT = {
    "cosine": [[1, 2 / 3], [0, 0], [22 / 30, 0]],
    "dot": [[18, 10], [0, 0], [22, 0]],
    "euclidean": [[-3, -np.sqrt(14)], [-6, -5], [-np.sqrt(17), -np.sqrt(50)]],
    "manhattan": [[-5, -6], [-10, -5], [-5, -12]],
}


@pytest.fixture
def llm(tmp_path: Path) -> LLM:
    return LLM(sentence_folder(tmp_path, settings={"similarity_fn_name": "dot_product"}))


@pytest.mark.parametrize("metric", RIGHT)
def test_vectors_are_compared_by_a_metric(llm: LLM, metric: str) -> None:
    found = llm.similarity(A, B, metric=metric)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, RIGHT[metric], rtol=1e-6, atol=1e-6)


def test_the_metric_of_the_folder_holds_unless_another_is_asked_for(llm: LLM) -> None:
    np.testing.assert_allclose(llm.similarity(A, B), RIGHT["dot"])


def test_texts_are_embedded(llm: LLM) -> None:
    texts = ["the dog", "cat"]
    vectors = llm.embed(texts)
    assert np.array_equal(llm.similarity(texts, "the dog"), llm.similarity(vectors, vectors[0]))
    np.testing.assert_allclose(llm.similarity("cat", texts)[0, 1], 1.0, rtol=1e-6)


def test_vectors_that_do_not_match_are_told(llm: LLM) -> None:
    with pytest.raises(ParameterError, match="3 and 2 dimensions"):
        llm.similarity(A, B[:, :2])
    with pytest.raises(ParameterError, match="metric must be one of cosine, dot"):
        llm.similarity(A, B, metric="hamming")
    for wrong in (None, {"a": 1}, np.zeros((1, 2, 3))):
        with pytest.raises(ParameterError, match="rows of numbers, or texts"):
            llm.similarity(wrong, B)
