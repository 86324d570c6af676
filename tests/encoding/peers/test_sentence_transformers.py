"""Compares vectors, scores and codes with those of sentence-transformers, where it is installed."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decodery import LLM, ModelError
from decodery.encoding.vectors.precision import at_precision
from decodery.weights.sources.locate import resolve
from tests.encoding.folders import MEAN, NORMALIZE, Module, encoder_folder, sentence_folder
from tests.encoding.test_sentence_folder import dense, pooling

TEXTS = [
    "the dog sat on the mat",
    "cat",
    "",
    "angela merkel visited microsoft in seattle, not paris!",
    "bank " * 40,
]
PROMPTS = {"query": "what is the ", "document": "the text of "}
TANH, NONE = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"
FOLDERS: Mapping[str, tuple[list[Module], dict[str, Any]]] = {
    **{
        flag: ([pooling(flag)], {})
        for flag in (
            *("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens"),
            *("weightedmean_tokens", "lasttoken"),
        )
    },
    "several": ([pooling("mean_tokens", "cls_token", "max_tokens"), NORMALIZE], {}),
    "several, listed": ([("Pooling", {"embedding_dimension": 24, "pooling_mode": ["max", "cls"]})], {}),
    "byte pairs": ([MEAN, NORMALIZE], {"architecture": "RobertaModel", "tokenizer": "byte pairs"}),
    "unigrams": ([MEAN], {"architecture": "XLMRobertaModel", "tokenizer": "unigrams"}),
    "limit": ([MEAN, NORMALIZE], {"sentence_bert": {"max_seq_length": 12, "do_lower_case": True}}),
    "prompt not pooled": ([pooling("mean_tokens", include_prompt=False)], {}),
    "prompt not pooled, first": ([pooling("cls_token", include_prompt=False)], {}),
}


def compare(library: Any, folder: Path, **arguments: Any) -> None:
    ours = LLM(folder)
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    for prompt in (None, *ours.encoder.vectors.prompts):
        texts = [text for text in TEXTS if prompt is None or text]
        right = theirs.encode(texts, prompt_name=prompt, **arguments)
        found = ours.embed(texts, prompt_name=prompt, long="cut", **arguments)
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_tiny_folders_give_the_vectors_of_sentence_transformers(
    library: Any, tmp_path: Path, name: str
) -> None:
    modules, more = FOLDERS[name]
    compare(library, sentence_folder(tmp_path, modules, settings={"prompts": PROMPTS}, **more))


@pytest.mark.slow
def test_dense_layers_and_cut_vectors_are_those_of_sentence_transformers(
    library: Any, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    layers: list[Module] = [
        ("Dense", dense(tmp_path / "2_Dense", 24, 16, TANH)[1]),
        ("Dense", dense(tmp_path / "3_Dense", 16, 16, NONE, bias=False)[1] | {"use_residual": True}),
        NORMALIZE,
    ]
    folder = sentence_folder(tmp_path, [MEAN, *layers])
    compare(library, folder)
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    right = theirs.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(LLM(folder).embed(TEXTS, truncate_dim=5), right, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["DECODERY_TEST_MPNET", "minilm"])
def test_published_folders_give_the_vectors_of_sentence_transformers(library: Any, variable: str) -> None:
    folder = published(variable)
    texts = [*TEXTS[:4], "Ein Haus am See, naïve!", "word " * 700]
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    found = LLM(folder).embed(texts, long="cut")
    np.testing.assert_allclose(found, theirs.encode(texts), atol=1e-5)


@pytest.mark.slow
def test_mpnet_tells_a_paraphrase_from_another_text() -> None:
    llm = LLM(published("DECODERY_TEST_MPNET"))
    first, others = "A man is eating food.", ["A man eats something.", "The girl is carrying a baby."]
    alike, unlike = llm.similarity(first, others)[0]
    assert alike > 0.8 > 0.3 > unlike


@pytest.mark.slow
def test_minilm_gives_the_normalised_means_of_transformers() -> None:
    import transformers

    folder = published("minilm")
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        with torch.no_grad():
            states = model(**tokenizer([text], return_tensors="pt", truncation=True, max_length=256))[0][0]
        right = torch.nn.functional.normalize(states.mean(0), dim=0)
        np.testing.assert_allclose(LLM(folder).embed(text)[0], right, atol=1e-5)


def published(name: str) -> Path:
    """Returns the folder of MiniLM, or the one that an environment variable names."""
    if name == "minilm":
        try:
            return resolve("minilm")
        except ModelError as error:
            pytest.skip(f"MiniLM is not to be had: {error}")
    if name not in os.environ:
        pytest.skip(f"{name} names no folder")
    return Path(os.environ[name])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_vectors_are_stored_as_sentence_transformers_does(library: Any, precision: str) -> None:
    stored = importlib.import_module("sentence_transformers.util.quantization")
    vectors = np.random.default_rng(0).standard_normal((50, 33)).astype(np.float32)
    ranges = np.stack([vectors[:20].min(0), vectors[:20].max(0)])
    given = ranges if "int" in precision else None
    right = stored.quantize_embeddings(vectors, precision, ranges=given)
    assert np.array_equal(at_precision(vectors, precision, ranges), right)


@pytest.mark.slow
@pytest.mark.parametrize("lowers", [False, True])
@pytest.mark.parametrize("kind", ["word pieces", "byte pairs"])
@pytest.mark.parametrize("limit", [None, 20])
def test_a_cross_encoder_scores_as_that_of_sentence_transformers(
    library: Any, tmp_path: Path, kind: str, lowers: bool, limit: int | None
) -> None:
    architecture = "Bert" if kind == "word pieces" else "Roberta"
    plain = encoder_folder(
        tmp_path / "plain", f"{architecture}ForSequenceClassification", tokenizer=kind, num_labels=1
    )
    # Without it, their tokenizer gives no segments.
    add(plain / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    folder = tmp_path / "saved"
    library.CrossEncoder(str(plain), device="cpu").save_pretrained(str(folder))
    add(folder / "sentence_bert_config.json", do_lower_case=lowers, max_seq_length=limit)
    theirs = library.CrossEncoder(str(folder), device="cpu")
    documents = ["the DOG sat on the mat", "cat", "", "bank " * 40]
    right = theirs.predict([("What is the BANK", document) for document in documents])
    ours = {one.index: one.score for one in LLM(folder).rerank("What is the BANK", documents, long="cut")}
    np.testing.assert_allclose([ours[index] for index in range(4)], right, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_prompt_of_a_cross_encoder_is_read_as_sentence_transformers_does(
    library: Any, tmp_path: Path
) -> None:
    plain = encoder_folder(tmp_path / "plain", "BertForSequenceClassification", num_labels=1)
    add(plain / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    folder = tmp_path / "saved"
    made = library.CrossEncoder(str(plain), device="cpu", prompts={"q": "the bank "}, default_prompt_name="q")
    made.save_pretrained(str(folder))
    theirs, ours = library.CrossEncoder(str(folder), device="cpu"), LLM(folder)
    pairs = [("who", "the dog sat on the mat"), ("what", "")]
    for prompt in (None, "", "a cat: "):
        right = theirs.predict(pairs, prompt=prompt)
        found = [ours.rerank(query, [text], instruction=prompt)[0].score for query, text in pairs]
        np.testing.assert_allclose(found, right, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_largest_weights_that_a_folder_keeps_are_those_of_sentence_transformers(
    library: Any, tmp_path: Path
) -> None:
    plain = encoder_folder(tmp_path / "plain", "BertForMaskedLM")
    folder = tmp_path / "saved"
    library.SparseEncoder(str(plain), device="cpu", max_active_dims=7).save_pretrained(str(folder))
    theirs, ours = library.SparseEncoder(str(folder), device="cpu"), LLM(folder)
    for most in (None, 3):
        right = theirs.encode(TEXTS, max_active_dims=most).to_dense().numpy()
        found = np.zeros_like(right)
        for row, one in zip(found, ours.embed_sparse(TEXTS, max_active_dims=most, long="cut"), strict=True):
            row[one.ids] = one.weights
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
        assert ((found > 0).sum(1) == (most or 7)).all()


def add(file: Path, **settings: Any) -> None:
    """Adds settings to a file of JSON."""
    stored = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**stored, **settings}), encoding="utf-8")
