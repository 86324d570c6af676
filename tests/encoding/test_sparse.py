"""Tests sparse vectors of texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError, ParameterError, RequestError
from tests.encoding.folders import MEAN, encoder_folder, sentence_folder, write_json

TEXTS = ["the dog sat on the mat", "", "bank of the river, and money"]


def their_scores(folder: Path, text: str) -> torch.Tensor:
    """Returns transformers' scores [tokens, vocabulary] of a text's places."""
    import transformers

    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        found: torch.Tensor = model(**tokenizer([text], return_tensors="pt")).logits[0]
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("splade"), "BertForMaskedLM")


def splade(path: Path, **config: Any) -> Path:
    """Writes a folder as sentence-transformers stores a model of sparse vectors."""
    encoder_folder(path, "BertForMaskedLM")
    kinds = ("MLMTransformer", ""), ("SpladePooling", "1_SpladePooling")
    listed = [
        {
            "idx": n,
            "name": str(n),
            "path": place,
            "type": f"sentence_transformers.sparse_encoder.models.{kind}",
        }
        for n, (kind, place) in enumerate(kinds)
    ]
    write_json(path / "modules.json", listed)
    write_json(path / "1_SpladePooling" / "config.json", config)
    return path


def dense(found: Any, size: int) -> np.ndarray[Any, Any]:
    whole = np.zeros(size)
    whole[found.ids] = found.weights
    return whole


def test_a_weight_is_the_largest_logarithm_of_a_score_over_the_places(folder: Path) -> None:
    llm = LLM(folder)
    found = llm.embed_sparse(TEXTS)
    for text, one in zip(TEXTS, found, strict=True):
        scores = their_scores(folder, text)
        expected = torch.log(1 + scores.clamp(min=0)).max(0).values
        np.testing.assert_allclose(dense(one, scores.shape[1]), expected, rtol=1e-4, atol=1e-5)
        assert (one.weights > 0).all()
        assert (np.diff(one.ids) > 0).all()
        assert (one.tokens, one.lost) == (len(scores), 0)


@pytest.mark.parametrize(
    ("config", "formula"),
    [
        ({"pooling_strategy": "max", "activation_function": "relu"}, lambda x: x.log1p().amax(0)),
        ({"pooling_strategy": "sum", "activation_function": "relu"}, lambda x: x.log1p().sum(0)),
        (
            {"pooling_strategy": "max", "activation_function": "log1p_relu"},
            lambda x: x.log1p().log1p().amax(0),
        ),
    ],
)
def test_a_folder_of_sentence_transformers_says_how_weights_are_made(
    config: Any, formula: Any, tmp_path: Path
) -> None:
    path = splade(tmp_path, **config)
    (found,) = LLM(path).embed_sparse(TEXTS[0])
    expected = formula(their_scores(path, TEXTS[0]).relu())
    np.testing.assert_allclose(dense(found, len(expected)), expected, rtol=1e-4, atol=1e-5)


def test_a_sparse_vector_is_the_same_whatever_shares_the_batch(folder: Path) -> None:
    llm = LLM(folder)
    together = llm.embed_sparse([*TEXTS, "word " * 40])
    for text, one in zip(TEXTS, together, strict=False):
        (alone,) = llm.embed_sparse(text)
        assert np.array_equal(alone.ids, one.ids)
        assert np.array_equal(alone.weights, one.weights)


def test_a_product_is_that_of_the_whole_vectors(folder: Path) -> None:
    llm = LLM(folder)
    one, two, _ = llm.embed_sparse(TEXTS)
    size = llm.encoder.model.vocab_size
    assert one.dot(two) == pytest.approx(dense(one, size) @ dense(two, size))
    assert one.dot(two) == two.dot(one) > 0


def test_prompts_of_the_folder_are_chosen_by_the_role(tmp_path: Path) -> None:
    path = splade(tmp_path)
    write_json(path / "config_sentence_transformers.json", {"prompts": {"query": "question "}})
    llm = LLM(path)
    (query,), (plain,) = llm.embed_sparse("who", query=True), llm.embed_sparse("question who")
    assert np.array_equal(query.weights, plain.weights)
    (document,), (bare,) = llm.embed_sparse("who", document=True), llm.embed_sparse("who")
    assert np.array_equal(document.weights, bare.weights)
    with pytest.raises(ParameterError, match="one of query and document"):
        llm.embed_sparse("who", query=True, document=True)


def test_as_many_weights_are_kept_as_the_folder_or_the_caller_says(tmp_path: Path) -> None:
    path = splade(tmp_path)
    (whole,) = LLM(path).embed_sparse("dog")
    assert len(whole.ids) > 5
    write_json(path / "config_sentence_transformers.json", {"max_active_dims": 5})
    llm = LLM(path)
    for most, (found,) in ((5, llm.embed_sparse("dog")), (2, llm.embed_sparse("dog", max_active_dims=2))):
        assert found.weights.tolist() == whole.weights[np.isin(whole.ids, found.ids)].tolist()
        assert sorted(found.weights) == sorted(whole.weights)[-most:]
        assert (np.diff(found.ids) > 0).all()
    (found,) = llm.embed_sparse("dog", max_active_dims=10**6)
    assert np.array_equal(found.ids, whole.ids)
    wrong: Any
    for wrong in (0, 2.0, True):
        with pytest.raises(ParameterError, match="max_active_dims must be a whole number from 1 on"):
            llm.embed_sparse("dog", max_active_dims=wrong)
    write_json(path / "config_sentence_transformers.json", {"max_active_dims": 0})
    with pytest.raises(ModelError, match="max_active_dims is 0"):
        LLM(path).embed_sparse("dog")


def test_wrong_models_texts_and_settings_are_errors(folder: Path, tmp_path: Path) -> None:
    llm = LLM(folder)
    with pytest.raises(RequestError, match="text 1: the text has 80 tokens, and 62 fit"):
        llm.embed_sparse(["dog", "dog cat " * 40])
    assert llm.embed_sparse("dog cat " * 40, long="cut")[0].lost == 18
    wrong: Any = "windows"
    with pytest.raises(ParameterError, match="long must be error or cut"):
        llm.embed_sparse("dog", long=wrong)
    with pytest.raises(ModelError, match="has no head 'masked_lm'"):
        LLM(encoder_folder(tmp_path / "plain")).embed_sparse("dog")
    with pytest.raises(ModelError, match="pooling_strategy is 'odd'"):
        LLM(splade(tmp_path / "odd", pooling_strategy="odd")).embed_sparse("dog")
    with pytest.raises(ModelError, match="SpladePooling: this model gives sparse vectors"):
        LLM(splade(tmp_path / "splade")).embed("dog")
    mean = sentence_folder(tmp_path / "mean", (MEAN,), architecture="BertForMaskedLM")
    with pytest.raises(ModelError, match="lists a Pooling: sparse vectors need a SpladePooling"):
        LLM(mean).embed_sparse("dog")
    assert llm.embed_sparse([]) == []
