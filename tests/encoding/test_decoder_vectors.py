"""Tests the vectors that decoders make of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, GenerationParams, ModelError, ParameterError
from tests.encoding.folders import DECODER, LAST, MEAN, NORMALIZE, encoder_folder, sentence_folder

TEXTS = ["the dog sat on the mat", "", "bank", "Angela Merkel visited Microsoft in Seattle, not Paris!"]
QUERY = "Instruct: Given a question, find passages that answer it\nQuery:"


def last_state(folder: Path, text: str) -> torch.Tensor:
    """Returns transformers' state [width] of the token behind a text, which ends it."""
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    ids = tokenizer(text).input_ids
    assert ids[-1] == 0
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).last_hidden_state[0, -1]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("qwen3"), "Qwen3Model", **DECODER)


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder like those of Qwen's embedders, whose architecture continues texts."""
    return sentence_folder(
        tmp_path_factory.mktemp("embedder"),
        (LAST, NORMALIZE),
        settings={"prompts": {"query": QUERY, "document": ""}, "default_prompt_name": None},
        architecture="Qwen3ForCausalLM",
        **DECODER,
    )


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(encoder_folder(tmp_path_factory.mktemp("causal"), "LlamaForCausalLM", **DECODER))


def test_a_decoder_without_a_head_gives_the_state_of_the_token_that_ends_a_text(folder: Path) -> None:
    llm = LLM(folder)
    found = llm.embed(TEXTS)
    assert found.pooling == "lasttoken"
    for text, vector in zip(TEXTS, found, strict=True):
        np.testing.assert_allclose(vector, last_state(folder, text), rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="reads texts and writes none"):
        llm.generate("a")


def test_other_poolings_of_a_decoder_are_asked_for(folder: Path) -> None:
    llm = LLM(folder)
    states = llm.embed_tokens("the dog")[0].vectors
    np.testing.assert_allclose(llm.embed("the dog", pooling="mean")[0], states.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(llm.embed("the dog")[0], states[-1])


def test_the_folder_of_an_embedder_says_how_vectors_are_made(embedder: Path) -> None:
    llm = LLM(embedder)
    assert llm.is_encoder
    document = llm.embed("the river", document=True)[0]
    expected = torch.nn.functional.normalize(last_state(embedder, "the river"), dim=0)
    np.testing.assert_allclose(document, expected, rtol=1e-4, atol=1e-6)
    query = llm.embed("where is water", query=True)[0]
    expected = torch.nn.functional.normalize(last_state(embedder, QUERY + "where is water"), dim=0)
    np.testing.assert_allclose(query, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(query, llm.embed("where is water", prompt=QUERY)[0])


def test_a_vector_of_a_decoder_is_the_same_whatever_shares_the_batch(folder: Path) -> None:
    llm = LLM(folder)
    texts = [*TEXTS, "the long text " * 9, *(f"word {n}" for n in range(40))]
    together = llm.embed(texts)
    for index in (0, 1, 2, 3, 4, 30):
        assert np.array_equal(llm.embed(texts[index])[0], together[index])


def test_the_end_of_a_long_text_is_cut_and_not_the_token_that_ends_it(folder: Path) -> None:
    llm = LLM(folder)
    cut = llm.embed("dog cat " * 50, long="cut")
    assert cut.tokens.tolist() == [64]
    read = llm.embed_tokens("dog cat " * 50, long="cut")[0].ids
    assert read[-1] == llm.tokenizer.pad_token_id == 0
    assert 0 not in read[:-1]
    # Given token ids are taken as they are.
    np.testing.assert_array_equal(llm.embed([list(read)])[0], cut[0])
    assert not np.array_equal(llm.embed([list(read[:-1])])[0], cut[0])


def test_a_padding_token_within_a_text_is_a_token(folder: Path) -> None:
    llm = LLM(folder)
    (whole,) = llm.embed([[5, 0, 7, 0]])
    assert not np.array_equal(whole, llm.embed([[5, 0, 7]])[0])
    states = llm.embed_tokens([[5, 0, 7, 0]])[0].vectors
    np.testing.assert_array_equal(whole, states[3])


def test_a_model_that_continues_texts_needs_a_pooling(causal: LLM) -> None:
    assert not causal.is_encoder
    with pytest.raises(ParameterError, match='pooling="last"'):
        causal.embed("the dog")
    vector = causal.embed("the dog", pooling="last")[0]
    np.testing.assert_array_equal(vector, causal.embed_tokens("the dog")[0].vectors[-1])
    (out,) = causal.generate("the dog", GenerationParams(max_tokens=2, temperature=0, ignore_eos=True))
    assert len(out.completions[0].token_ids) == 2
    given: Any
    for given in (lambda: causal.fill_mask("a"), lambda: causal.tag("a"), lambda: causal.answer("a", "b")):
        with pytest.raises(ModelError, match="it has next_token"):
            given()


def test_states_of_a_text_are_those_with_which_it_is_continued(causal: LLM) -> None:
    (state,) = causal.embed([[5, 9, 7]], pooling="last").vectors
    logits = causal.model.logits(torch.tensor(state)[None])
    params = GenerationParams(max_tokens=1, temperature=0)
    (out,) = causal.generate([[5, 9, 7]], params)
    assert out.completions[0].token_ids[0] == logits.argmax().item()


def test_a_pooling_beside_a_causal_model_may_be_the_mean(tmp_path: Path) -> None:
    path = sentence_folder(tmp_path, (MEAN,), architecture="MistralForCausalLM", **DECODER)
    llm = LLM(path)
    states = llm.embed_tokens("the dog")[0].vectors
    np.testing.assert_allclose(llm.embed("the dog")[0], states.mean(0), rtol=1e-5, atol=1e-6)


def test_a_model_in_a_folder_within_is_read_by_the_modules_around_it(tmp_path: Path) -> None:
    path = sentence_folder(
        tmp_path, (LAST,), transformer="0_Transformer", architecture="Qwen2ForCausalLM", **DECODER
    )
    assert LLM(path).is_encoder
    assert LLM(path).embed("a").pooling == "lasttoken"
