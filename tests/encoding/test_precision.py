"""Tests vectors in fewer bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from decodery import LLM, ParameterError
from decodery.encoding.vectors.precision import at_precision
from tests.encoding.folders import sentence_folder

TEXTS = ["the dog sat", "", "bank of the river", "cat", "one two three"]
CALIBRATED = np.array([[1, 20, -3], [4, 5, -60]], np.float32)
RANGES = np.stack([CALIBRATED.min(0), CALIBRATED.max(0)])


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(sentence_folder(tmp_path_factory.mktemp("folder")))


def test_numbers_beyond_the_ranges_become_their_ends() -> None:
    value = np.array([[-1, 15, 1]], np.float32)
    assert at_precision(value, "int8", RANGES).tolist() == [[-128, 42, 127]]
    assert at_precision(value, "uint8", RANGES).tolist() == [[0, 170, 255]]


def test_the_ends_of_the_ranges_are_the_ends_of_the_codes() -> None:
    for value, code in ((RANGES[:1], -128), (RANGES[1:], 127)):
        assert at_precision(value, "int8", RANGES).tolist() == [[code] * 3]
    flat = np.ones((2, 3), np.float32)
    assert at_precision(flat[:1], "int8", flat).tolist() == [[-128] * 3], "a dimension without a range"


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_whole_numbers_need_ranges_that_are_given(llm: LLM, precision: Any) -> None:
    for texts in (["one text"], TEXTS, []):
        with pytest.raises(ParameterError, match=f"the precision {precision} needs ranges="):
            llm.embed(texts, precision=precision)
    ranges = llm.embed(TEXTS).ranges
    found = llm.embed(TEXTS, precision=precision, ranges=ranges)
    assert found.vectors.dtype == np.dtype(precision)
    assert np.array_equal(llm.embed("cat", precision=precision, ranges=ranges)[0], found[3])
    steps = (ranges[1] - ranges[0]) / 255
    codes = found.vectors.astype(np.float32) + (128 if precision == "int8" else 0)
    assert np.abs(ranges[0] + codes * steps - llm.embed(TEXTS).vectors).max() <= steps.max() * 1.001


@pytest.mark.parametrize(
    "ranges", [np.zeros((2, 23)), np.zeros(24), [[1.0] * 24, [0.0] * 24], [[np.nan] * 24] * 2, "all", [["a"]]]
)
def test_ranges_must_be_the_least_and_the_largest_of_each_dimension(llm: LLM, ranges: Any) -> None:
    with pytest.raises(ParameterError, match="ranges must be two rows of 24 numbers"):
        llm.embed("dog", precision="int8", ranges=ranges)


def test_one_vector_has_no_ranges(llm: LLM) -> None:
    with pytest.raises(ParameterError, match="two vectors or more"):
        _ = llm.embed("dog").ranges
    with pytest.raises(ParameterError, match="ranges are for the precisions int8 and uint8"):
        llm.embed("dog", ranges=np.zeros((2, 24)))
    with pytest.raises(ParameterError, match="precision must be one of float32, int8"):
        llm.embed("dog", precision="float16")  # type: ignore[arg-type]


def test_bits_are_the_signs_eight_in_a_byte(llm: LLM) -> None:
    whole = llm.embed(TEXTS).vectors > 0
    for dim in (24, 9, 1):
        packed = llm.embed(TEXTS, precision="ubinary", truncate_dim=dim).vectors
        assert packed.dtype == np.uint8
        assert packed.shape == (5, -(-dim // 8))
        assert np.array_equal(np.unpackbits(packed, axis=1)[:, :dim], whole[:, :dim])
        signed = llm.embed(TEXTS, precision="binary", truncate_dim=dim).vectors
        assert signed.dtype == np.int8
        assert np.array_equal(signed.astype(int) + 128, packed)
