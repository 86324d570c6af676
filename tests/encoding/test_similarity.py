"""Tests the comparison of vectors and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def test_texts_are_queries_and_documents_where_the_folder_has_prompts_for_both(tmp_path: Path) -> None:
    a, b = ["the dog", "cat"], ["bank of the river"]
    for number, (prompts, apart) in enumerate(
        [
            ({"query": "what is ", "passage": "text of ", "sts": "the "}, True),
            ({"query": "", "document": "text of ", "sts": "the "}, True),
            ({"query": "", "document": "", "sts": "the "}, False),
            ({"query": "what is ", "sts": "the "}, False),
        ]
    ):
        settings = {"prompts": prompts, "default_prompt_name": "sts"}
        llm = LLM(sentence_folder(tmp_path / str(number), settings=settings))
        right = llm.similarity(llm.embed(a, query=True), llm.embed(b, document=True))
        alike = llm.similarity(llm.embed(a), llm.embed(b))
        assert np.array_equal(llm.similarity(a, b), right if apart else alike)
        assert not np.allclose(right, alike, atol=1e-4)
        mixed = llm.similarity(llm.embed(a, query=True), b)
        assert np.allclose(mixed, right, atol=1e-6) == apart


def test_vectors_that_are_not_finite_are_told(llm: LLM) -> None:
    for wrong in (np.nan, np.inf):
        for given in (([[1.0, wrong]], [[1.0, 2.0]]), ([1.0, 2.0], [wrong, 1.0])):
            with pytest.raises(ParameterError, match="vectors to compare hold numbers that are not finite"):
                llm.similarity(*given)


@pytest.mark.parametrize("metric", RIGHT)
@pytest.mark.parametrize("dim", [24, 9])
def test_bits_are_compared_by_their_hamming_distance(llm: LLM, metric: str, dim: int) -> None:
    texts = ["the dog sat", "cat", "bank of the river"]
    bits = llm.embed(texts, truncate_dim=dim).vectors > 0
    distances = (bits[:, None] != bits[None]).sum(-1)
    right = {
        "cosine": 1 - 2 * distances / dim,
        "dot": dim - 2 * distances,
        "euclidean": -2 * np.sqrt(distances),
        "manhattan": -2 * distances,
    }
    packed = llm.embed(texts, truncate_dim=dim, precision="ubinary")
    signed = llm.embed(texts, truncate_dim=dim, precision="binary")
    for one, two in ((packed, packed), (signed, packed), (packed, signed)):
        np.testing.assert_allclose(llm.similarity(one, two, metric=metric), right[metric], atol=1e-5)


def test_codes_and_loose_bytes_are_not_compared_as_vectors(llm: LLM) -> None:
    texts = ["the dog sat", "cat"]
    whole, bits = llm.embed(texts), llm.embed(texts, precision="ubinary")
    codes: list[Any] = [
        llm.embed(texts, precision=precision, ranges=whole.ranges) for precision in ("int8", "uint8")
    ]
    for wrong in (*codes, codes[0][0], bits[0], bits.vectors):
        for other in (wrong, whole):
            with pytest.raises(ParameterError, match="codes or packed bits"):
                llm.similarity(wrong, other)
    for mixed in (whole, texts, codes[0]):
        with pytest.raises(ParameterError, match="embed both in the same precision"):
            llm.similarity(bits, mixed)
    with pytest.raises(ParameterError, match="24 and 9 dimensions"):
        llm.similarity(bits, llm.embed(texts, precision="ubinary", truncate_dim=9))


def test_nothing_is_like_nothing_in_an_empty_matrix(llm: LLM) -> None:
    for metric in RIGHT:
        assert llm.similarity([], ["cat", "dog"], metric=metric).shape == (0, 2)
        assert llm.similarity(A, [], metric=metric).shape == (3, 0)
        assert llm.similarity(llm.embed([]), "cat", metric=metric).shape == (0, 1)


def test_texts_may_come_in_an_array(llm: LLM) -> None:
    texts = ["the dog", "cat"]
    assert np.array_equal(llm.similarity(np.array(texts), tuple(texts)), llm.similarity(texts, texts))


def test_vectors_that_do_not_match_are_told(llm: LLM) -> None:
    with pytest.raises(ParameterError, match="3 and 2 dimensions"):
        llm.similarity(A, B[:, :2])
    with pytest.raises(ParameterError, match="metric must be one of cosine, dot"):
        llm.similarity(A, B, metric="hamming")
    for wrong in (None, {"a": 1}, np.zeros((1, 2, 3))):
        with pytest.raises(ParameterError, match="rows of numbers, or texts"):
            llm.similarity(wrong, B)
