"""Tests the vectors of tokens and words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ParameterError, RequestError
from decodery.encoding.spans import character_spans
from tests.encoding.folders import MEAN, encoder_folder, sentence_folder

TEXT = "The bank of the river, and a banker plays at the bank"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def llm(folder: Path) -> LLM:
    return LLM(folder)


def test_each_layer_has_the_states_of_transformers(folder: Path, llm: LLM) -> None:
    import transformers

    model = transformers.AutoModel.from_pretrained(folder).eval()
    texts = [TEXT, "cat", ""]
    for index, text in enumerate(texts):
        ids = torch.tensor([llm.tokenizer.encode(text)])
        with torch.no_grad():
            states: Any = model(ids, output_hidden_states=True).hidden_states
        for layer in (0, 1, 2, -1, -3):
            found = llm.embed_tokens(texts, layer=layer)[index]
            assert list(found.ids) == ids[0].tolist()
            np.testing.assert_allclose(found.vectors, states[layer][0], rtol=1e-5, atol=1e-5)


def test_several_layers_from_one_pass_are_those_of_single_calls(llm: LLM) -> None:
    texts = [TEXT, "cat", ""]
    layers = (2, 0, -2)
    for layer, found in zip(layers, llm.embed_token_layers(texts, layers), strict=True):
        for ours, alone in zip(found, llm.embed_tokens(texts, layer=layer), strict=True):
            assert (ours.ids, ours.spans) == (alone.ids, alone.spans)
            np.testing.assert_array_equal(ours.vectors, alone.vectors)
    with pytest.raises(ParameterError, match="layer must be a whole number from 0"):
        llm.embed_token_layers(texts, (0, 3))


def test_the_spans_of_tokens_are_characters_of_the_text(llm: LLM) -> None:
    [found] = llm.embed_tokens("Née 😀 dog, BANK")
    texts = ["Née 😀 dog, BANK"[start:end] for start, end in found.spans]
    assert texts[0] == texts[-1] == ""
    assert texts[-4:-1] == ["dog", ",", "BANK"]
    assert found.spans[0] == found.spans[-1] == (0, 0)


@pytest.mark.parametrize("kind", ["word pieces", "byte pairs", "unigrams"])
def test_a_word_has_the_mean_of_its_tokens_in_each_place(tmp_path: Path, kind: str) -> None:
    llm = LLM(encoder_folder(tmp_path, tokenizer=kind))
    [found] = llm.embed_tokens(TEXT, words=["bank", "banker"])
    assert [(word.text, word.start, word.end) for word in found.words] == [
        ("bank", 4, 8),
        ("banker", 29, 35),
        ("bank", 49, 53),
    ]
    for word in found.words:
        tokens = [
            place
            for place, (start, end) in enumerate(found.spans)
            if TEXT[start:end].strip() and word.start <= end - 1 < word.end
        ]
        np.testing.assert_allclose(word.vector, found.vectors[tokens].mean(0), rtol=1e-6)
    assert not np.allclose(found.words[0].vector, found.words[2].vector), "their contexts differ"


def test_words_of_scripts_without_spaces_are_found_in_the_text(llm: LLM) -> None:
    [found] = llm.embed_tokens("我在銀行 dog", words="銀行")
    assert [(word.text, word.start) for word in found.words] == [("銀行", 2)]


@pytest.mark.parametrize(
    ("text", "word", "starts"),
    [
        ("cafe\u0301 open cafe", "cafe", [11]),
        ("cafe\u0301 open", "cafe\u0301", [0]),
        ("e\u0301cafe cafe", "cafe", [7]),
        ("\u0915\u0940 \u0915", "\u0915", [3]),
        ("\u304b\u3099\u304b", "\u304b", [2]),
    ],
)
def test_accents_and_vowel_signs_belong_to_the_word(
    llm: LLM, text: str, word: str, starts: list[int]
) -> None:
    [found] = llm.embed_tokens(text, words=word)
    assert [one.start for one in found.words] == starts


@pytest.mark.parametrize("kind", ["word pieces", "byte pairs", "unigrams"])
@pytest.mark.parametrize("prompt", ["what is the ", "what is", "query: \U0001f600"])
def test_a_prompt_stands_before_the_tokens_as_it_does_for_embed(
    tmp_path: Path, kind: str, prompt: str
) -> None:
    settings = {"prompts": {"query": prompt, "other": ""}, "default_prompt_name": "query"}
    llm = LLM(sentence_folder(tmp_path, [MEAN], tokenizer=kind, settings=settings))
    [plain] = llm.embed_tokens(TEXT, words="bank", prompt="")
    for named in ({}, {"prompt_name": "query"}, {"prompt": prompt}, {"query": True}):
        [found] = llm.embed_tokens(TEXT, words="bank", **named)
        np.testing.assert_allclose(found.vectors.mean(0), llm.embed(TEXT, **named)[0], rtol=1e-5, atol=1e-6)
        assert [(word.start, word.end) for word in found.words] == [(4, 8), (49, 53)]
        assert found.spans[-8:] == plain.spans[-8:]
        assert all(0 <= start <= end <= len(TEXT) for start, end in found.spans)
    assert np.array_equal(llm.embed_tokens(TEXT, document=True)[0].vectors, plain.vectors)
    with pytest.raises(ParameterError, match="prompt_name must name a prompt"):
        llm.embed_tokens(TEXT, prompt_name="passage")


def test_words_that_are_not_there_have_no_vector(llm: LLM) -> None:
    [found] = llm.embed_tokens("the Bank and bankers", words=["bank"])
    assert found.words == ()
    cut = llm.embed_tokens("dog " * 63 + "bank", words=["bank"], long="cut")[0]
    assert (cut.words, cut.lost) == ((), 2)


def test_wrong_arguments_are_told(llm: LLM) -> None:
    for layer in (3, -4, 1.0, True):
        with pytest.raises(ParameterError, match="layer must be a whole number from 0, the embeddings, to 2"):
            llm.embed_tokens("dog", layer=layer)  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="words must be texts"):
        llm.embed_tokens("dog", words=[" "])
    with pytest.raises(ParameterError, match="words are found in texts"):
        llm.embed_tokens([[5, 6]], words="dog")
    with pytest.raises(RequestError, match="text 1: the text has 70 tokens"):
        llm.embed_tokens(["dog", "dog " * 70])
    with pytest.raises(ParameterError, match="long must be error or cut"):
        llm.embed_tokens("dog", long="windows")  # type: ignore[arg-type]


def test_token_ids_have_vectors_without_spans(llm: LLM) -> None:
    [found] = llm.embed_tokens([[5, 6, 7]])
    assert (found.ids, found.spans, len(found)) == ((5, 6, 7), ((0, 0),) * 3, 3)


def test_spans_hold_for_surrogates_and_for_letters_that_grow_in_lower_case(llm: LLM) -> None:
    text = "\ud83d\ude00 İdog cat"
    for lowers in (False, True):
        ids, spans = character_spans(llm.tokenizer, text, lowers=lowers)
        assert len(ids) == len(spans)
        assert [text[start:end] for start, end in spans[-2:]][-1] == "cat"
        assert max(end for _, end in spans) == len(text)
