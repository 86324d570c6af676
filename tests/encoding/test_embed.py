"""Tests the vectors of texts."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from decodery import LLM, ModelError, ParameterError, RequestError
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


@pytest.mark.parametrize("quantization", ["int8", "int4", "bf16", None])
def test_packed_weights_give_the_same_bits_alone_and_beside_a_long_text(
    tmp_path: Path, quantization: str | None
) -> None:
    folder = encoder_folder(tmp_path, max_position_embeddings=256, hidden_size=96, intermediate_size=160)
    llm = LLM(folder, quantization=quantization, backend="native")
    alone = {text: llm.embed(text)[0] for text in TEXTS}
    for others in ([*TEXTS[1:]], ["dog " * 254], ["dog " * 254] * 20):
        for text, vector in alone.items():
            assert np.array_equal(llm.embed([text, *others])[0], vector)
            assert np.array_equal(llm.embed([*others, text])[-1], vector)


def test_a_text_without_any_token_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": None}))
    llm = LLM(folder)
    assert llm.embed("dog").tokens.tolist() == [1]
    with pytest.raises(RequestError, match="text 1: the text has no token") as caught:
        llm.embed(["dog", "", "cat"])
    assert caught.value.param == "texts[1]"
    with pytest.raises(RequestError, match="there are no token ids"):
        llm.embed([[]])


@pytest.mark.parametrize(
    "wrong", [None, 3, {"text": "dog"}, b"dog", ["dog", None], ["dog", ["cat"]], [1.5], [[True]]]
)
def test_what_is_no_text_is_told(llm: LLM, wrong: Any) -> None:
    with pytest.raises(ParameterError, match=r"must be (a str or a list of token ids|integers), not \w+"):
        llm.embed(wrong)


def test_the_ends_of_windows_follow_the_tokens_of_prompt_and_text(llm: LLM) -> None:
    long = "dog cat " * 40
    divided = llm.embed(long, prompt="the red ", long="windows", normalize=True)
    one = llm.embed("the red " + "dog cat " * 30, normalize=True)[0]
    two = llm.embed("the red " + "dog cat " * 10, normalize=True)[0]
    right = (60 * one + 20 * two) / 80
    np.testing.assert_allclose(divided[0], right / np.linalg.norm(right), rtol=1e-5, atol=1e-6)
    assert divided.tokens.tolist() == [64 + 24]
    ids = llm.tokenizer.encode(long)
    halves = llm.embed([ids[:64], ids[64:]])
    right = (64 * halves[0] + (len(ids) - 64) * halves[1]) / len(ids)
    np.testing.assert_allclose(llm.embed([ids], long="windows")[0], right, rtol=1e-5, atol=1e-6)


def test_a_prompt_that_leaves_no_place_is_an_error(llm: LLM) -> None:
    for long in ("error", "cut", "windows"):
        with pytest.raises(RequestError, match="are 72 tokens, and 64 fit: shorten the prompt"):
            llm.embed("cat", prompt="dog " * 70, long=long)
    for long in ("error", "windows"):
        with pytest.raises(RequestError, match=r"leave no place|has 1 tokens, and 0 fit"):
            llm.embed("cat", prompt="dog " * 62, long=long)


def test_weights_that_are_not_numbers_are_told(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path)
    stored = load_file(folder / "model.safetensors")
    stored["encoder.layer.0.attention.output.dense.bias"][3] = float("nan")
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="the vector of text 0 holds numbers that are not finite"):
        LLM(folder).embed(["dog", "cat"])


def test_embeddings_are_an_array(llm: LLM) -> None:
    found = llm.embed(TEXTS)
    assert len(found) == len(list(found)) == 4
    assert np.array_equal(np.asarray(found), found.vectors)
    assert np.asarray(found, np.float64).dtype == np.float64
    assert np.array(found).base is None
    assert found[1:3].shape == (2, 24)


def test_threads_get_the_vectors_of_their_texts(llm: LLM) -> None:
    right = llm.embed([f"word {n}" for n in range(40)])
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: llm.embed(f"word {n}")[0], range(40)))
    assert np.array_equal(np.stack(found), right)


def test_weights_without_the_head_that_the_config_names_give_vectors(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path, "BertForMaskedLM")
    stored = load_file(folder / "model.safetensors")
    states = states_of(folder, "the dog")
    alone = {name.removeprefix("bert."): value for name, value in stored.items() if name.startswith("bert.")}
    save_file(alone, folder / "model.safetensors", metadata={"format": "pt"})
    llm = LLM(folder)
    np.testing.assert_allclose(llm.embed("the dog")[0], states.mean(0), rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="has no head 'masked_lm'; it has none, only vectors"):
        llm.encoder.head("masked_lm")
    del stored["cls.predictions.transform.dense.weight"]
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"missing: cls\.predictions\.transform\.dense\.weight"):
        LLM(folder)
