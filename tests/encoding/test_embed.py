"""Tests the vectors of texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decodery import LLM, ParameterError, RequestError
from tests.encoding.folders import encoder_folder
from tests.encoding.states import states_of

TEXTS = ["the dog sat on the mat", "", "bank", "angela merkel visited microsoft in seattle, not paris!"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder)


def test_a_text_has_the_mean_of_its_states(folder: Path, llm: LLM) -> None:
    found = llm.embed(TEXTS)
    for text, vector in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(vector, states_of(folder, text).mean(0), rtol=1e-5, atol=1e-5)
    assert found.tokens.tolist() == [len(llm.tokenizer.encode(text)) for text in TEXTS]
    assert found.lost.tolist() == [0] * len(TEXTS)
    assert found.pooling == "mean"


def test_a_vector_is_the_same_whatever_shares_the_batch(llm: LLM) -> None:
    texts = [*TEXTS, "the long text " * 15, *(f"word {n}" for n in range(300))]
    together = llm.embed(texts, normalize=True)
    for index in (0, 1, 2, 3, 4, 200):
        alone = llm.embed(texts[index], normalize=True)
        assert alone.vectors.shape == (1, 24)
        assert np.array_equal(alone[0], together[index])


def test_a_long_text_is_an_error_or_cut_or_divided(llm: LLM) -> None:
    long = "dog cat " * 40
    with pytest.raises(RequestError, match=r"text 1: the text has 80 tokens, and 62 fit"):
        llm.embed(["dog", long])
    cut = llm.embed(["dog", long], long="cut")
    assert cut.lost.tolist() == [0, 18]
    assert np.array_equal(cut[1], llm.embed("dog cat " * 31)[0])
    divided = llm.embed(long, long="windows")
    one, two = llm.embed(["dog cat " * 31, "dog cat " * 9])
    np.testing.assert_allclose(divided[0], (62 * one + 18 * two) / 80, rtol=1e-5, atol=1e-6)
    assert divided.lost.tolist() == [0]


def test_token_ids_are_taken_as_they_are(llm: LLM) -> None:
    ids = llm.tokenizer.encode("the dog")
    assert np.array_equal(llm.embed([ids])[0], llm.embed("the dog")[0])
    assert llm.embed(ids[1:-1]).tokens.tolist() == [2]
    with pytest.raises(ParameterError, match="outside the vocabulary"):
        llm.embed([[3, 5000]])
