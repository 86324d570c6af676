"""Tests models that give each token a vector (ColBERT) against transformers and the formula of the paper."""

from __future__ import annotations

import json
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from decodery import LLM, ModelError, ParameterError, RequestError
from tests.encoding.colbert_folders import (
    DIM,
    colbert_folder,
    masked_folder,
    pylate_folder,
    their_vectors,
)
from tests.encoding.folders import MEAN, encoder_folder, sentence_folder, write_json
from tests.kernels.native.fixtures import built

QUERY, LENGTH = "what is the river", 14
DOCUMENTS = ["the dog sat, on the mat.", "", "bank of the river and money!", "?! ,", "cat"]
EXPANDED = {"strategy": "fixed", "attend": True, "length": LENGTH}
Make = Callable[..., Path]
# How each layout says that mask tokens are attended, and which leaves punctuation out by itself.
LAYOUTS: Mapping[str, tuple[Make, Mapping[str, Any], Mapping[str, Any]]] = {
    "colbert": (colbert_folder, {"attend_to_mask_tokens": True}, {}),
    "pylate": (pylate_folder, {"attend_to_expansion_tokens": True}, {}),
    "masked": (
        masked_folder,
        {"transformer": {"query_expansion": EXPANDED}},
        {"mask": {"skiplist_words": list(string.punctuation)}},
    ),
}


def read(llm: LLM, text: str, marker: str) -> list[int]:
    """Returns the ids of a text as the model reads it: with the marker behind the first special token."""
    first, *rest = llm.tokenizer.encode(text)
    token = llm.tokenizer.token_id(marker)
    assert token is not None
    return [first, token, *rest]


def markers(llm: LLM) -> tuple[str, str]:
    own = llm.tokenizer.token_id("[unused0]") is not None
    return ("[unused0]", "[unused1]") if own else ("[Q] ", "[D] ")


def expected_query(folder: Path, llm: LLM, text: str = QUERY, *, attends: bool = False) -> torch.Tensor:
    ids = read(llm, text, markers(llm)[0])
    mask = llm.tokenizer.named_ids["mask"]
    filled = [*ids, *[mask] * (LENGTH - len(ids))]
    return their_vectors(folder, filled, len(filled) if attends else len(ids))


def expected_document(folder: Path, llm: LLM, text: str) -> torch.Tensor:
    ids = read(llm, text, markers(llm)[1])
    skipped = {llm.tokenizer.token_id(mark) for mark in string.punctuation} - {None}
    kept = [place for place, token in enumerate(ids) if token not in skipped]
    return their_vectors(folder, ids, len(ids), kept=kept)


@pytest.mark.parametrize("attends", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_vectors_of_each_layout_are_those_of_the_formula(name: str, attends: bool, tmp_path: Path) -> None:
    make, attending, skipping = LAYOUTS[name]
    folder = make(tmp_path / "m", **(attending if attends else {}), **skipping)
    llm = LLM(folder)
    (query,) = llm.embed_multi(QUERY, query=True)
    assert (query.tokens, len(query.ids), query.lost) == (LENGTH, LENGTH, 0)
    np.testing.assert_allclose(query.vectors, expected_query(folder, llm, attends=attends), atol=2e-6)
    found = llm.embed_multi(DOCUMENTS)
    for text, one in zip(DOCUMENTS, found, strict=True):
        expected = expected_document(folder, llm, text)
        np.testing.assert_allclose(one.vectors, expected, atol=2e-6)
        assert len(one.ids) == len(expected)
    # An empty text, and one of punctuation alone, have the vectors of the special tokens.
    assert len(found[1].ids) == len(found[3].ids) == 3 < found[3].tokens
    ranked = llm.rerank(QUERY, DOCUMENTS)
    scores = {
        index: float((expected_query(folder, llm, attends=attends) @ theirs.T).amax(1).sum())
        for index, theirs in enumerate(expected_document(folder, llm, text) for text in DOCUMENTS)
    }
    assert [one.index for one in ranked] == sorted(scores, key=lambda index: -scores[index])
    for one in ranked:
        assert one.score == one.logit == pytest.approx(scores[one.index], abs=1e-4)
        assert one.score == query.max_sim(found[one.index])
    assert llm.rerank(QUERY, DOCUMENTS, top_n=2) == ranked[:2]
    assert llm.rerank(QUERY, []) == []


@pytest.mark.parametrize(
    ("architecture", "tokenizer", "model"),
    [
        ("RobertaModel", "byte pairs", {}),
        ("XLMRobertaModel", "unigrams", {}),
        ("MPNetModel", "word pieces", {}),
        ("ModernBertModel", "word pieces", {"local_attention": 24, "global_attn_every_n_layers": 2}),
    ],
)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_other_families_fill_up_queries_too(
    architecture: str, tokenizer: str, model: Any, backend: str, tmp_path: Path
) -> None:
    folder = pylate_folder(tmp_path, architecture, tokenizer, model=model)
    llm = LLM(folder, backend=backend)
    for text in (QUERY, "cat"):
        (query,) = llm.embed_multi(text, query=True)
        np.testing.assert_allclose(query.vectors, expected_query(folder, llm, text), atol=1e-5)
    (document,) = llm.embed_multi(DOCUMENTS[0])
    np.testing.assert_allclose(document.vectors, expected_document(folder, llm, DOCUMENTS[0]), atol=1e-5)


def test_squared_distances_and_means_are_scores_where_the_folder_says_so(tmp_path: Path) -> None:
    folder = colbert_folder(tmp_path / "l2", similarity="l2")
    llm = LLM(folder)
    query, document = expected_query(folder, llm), expected_document(folder, llm, DOCUMENTS[0])
    distances = ((query[:, None] - document) ** 2).sum(-1)
    (found,) = llm.rerank(QUERY, DOCUMENTS[:1])
    assert found.score == pytest.approx(-float(distances.amin(1).sum()), abs=1e-5)
    means = LLM(masked_folder(tmp_path / "mean", similarity_fn_name="meanmaxsim"))
    sums = LLM(masked_folder(tmp_path / "sum"))
    one, other = (each.rerank(QUERY, DOCUMENTS)[0].score for each in (means, sums))
    assert one == pytest.approx(other / LENGTH)


@built
def test_vectors_and_scores_are_the_same_whatever_shares_the_batch(tmp_path: Path) -> None:
    llm = LLM(pylate_folder(tmp_path))
    queries = [QUERY, "who", "the dog and the cat on a mat"]
    together = llm.embed_multi(queries, query=True)
    for text, one in zip(queries, together, strict=True):
        (alone,) = llm.embed_multi(text, query=True)
        assert np.array_equal(alone.vectors, one.vectors)
    for text, one in zip(DOCUMENTS, llm.embed_multi([*DOCUMENTS]), strict=True):
        assert np.array_equal(llm.embed_multi(text)[0].vectors, one.vectors)
    for one in llm.rerank(QUERY, DOCUMENTS):
        assert llm.rerank(QUERY, [one.document])[0].score == one.score


@built
def test_mask_tokens_that_are_not_attended_change_no_bit_of_the_query(tmp_path: Path) -> None:
    filled = LLM(pylate_folder(tmp_path / "filled"))
    bare = LLM(pylate_folder(tmp_path / "bare", do_query_expansion=False))
    attended = LLM(pylate_folder(tmp_path / "attended", attend_to_expansion_tokens=True))
    one, two, three = (each.embed_multi(QUERY, query=True)[0] for each in (filled, bare, attended))
    count = len(two.ids)
    assert count < len(one.ids) == len(three.ids) == LENGTH
    assert np.array_equal(one.vectors[:count], two.vectors)
    assert not np.allclose(three.vectors[:count], two.vectors, atol=1e-3)


def test_texts_beyond_the_lengths_of_the_folder_are_errors_unless_they_are_cut(tmp_path: Path) -> None:
    llm = LLM(colbert_folder(tmp_path))
    long_query, long_document = "dog " * 12, "cat " * 30
    assert llm.text_limit == 20
    with pytest.raises(RequestError, match="the text has 12 tokens, and 11 fit beside 3 others"):
        llm.embed_multi(long_query, query=True)
    with pytest.raises(RequestError, match="text 1: the text has 30 tokens, and 17 fit beside 3 others"):
        llm.embed_multi(["cat", long_document])
    with pytest.raises(RequestError, match="document 1: the text has 30 tokens"):
        llm.rerank("dog", ["cat", long_document])
    with pytest.raises(RequestError, match=r"^the query: the text has 12 tokens") as found:
        llm.rerank(long_query, ["cat", "dog"])
    assert found.value.param == "query"
    (query,) = llm.embed_multi(long_query, query=True, long="cut")
    assert (query.tokens, query.lost, len(query.ids)) == (LENGTH, 1, LENGTH)
    assert np.array_equal(query.vectors, llm.embed_multi("dog " * 11, query=True)[0].vectors)
    lost = {one.index: one.lost for one in llm.rerank(long_query, ["cat", long_document], long="cut")}
    assert lost == {0: 1, 1: 14}
    wrong: Any = "windows"
    with pytest.raises(ParameterError, match="long must be error or cut"):
        llm.embed_multi("dog", long=wrong)


def test_a_query_may_be_longer_than_that_to_which_it_is_filled_up_where_the_folder_says_so(
    tmp_path: Path,
) -> None:
    least = {"strategy": "min", "length": 6, "token": "cat"}
    llm = LLM(masked_folder(tmp_path, transformer={"query_expansion": least, "query_length": 9}))
    cat = llm.tokenizer.token_id("cat")
    (short,) = llm.embed_multi("dog", query=True)
    assert short.ids[-2:] == (cat, cat)
    assert len(short.ids) == 6
    (long,) = llm.embed_multi("dog " * 6, query=True)
    assert len(long.ids) == 9
    with pytest.raises(RequestError, match="the text has 7 tokens, and 6 fit"):
        llm.embed_multi("dog " * 7, query=True)


def test_the_folder_says_which_tokens_are_left_out(tmp_path: Path) -> None:
    text = "the dog, the cat."
    whole = LLM(colbert_folder(tmp_path / "whole", mask_punctuation=False)).embed_multi(text)[0]
    assert len(whole.ids) == whole.tokens == 9
    llm = LLM(pylate_folder(tmp_path / "words", skiplist_words=["dog", "no such token"]))
    (found,) = llm.embed_multi(text)
    assert len(found.ids) == 8
    assert llm.tokenizer.token_id("dog") not in found.ids
    # Unknown words of the list are not the unknown token.
    assert llm.tokenizer.named_ids["unk"] in llm.embed_multi("☃")[0].ids
    both = {"skiplist_words": ["dog"], "skiplist_tasks": ["query", "document"]}
    (query,) = LLM(masked_folder(tmp_path / "both", mask=both)).embed_multi("dog", query=True)
    assert len(query.ids) == LENGTH - 1
    special = ["[CLS]", "[D] ", "[SEP]", "dog"]
    empty = LLM(pylate_folder(tmp_path / "empty", skiplist_words=special))
    with pytest.raises(RequestError, match="text 1: the text has no token that counts"):
        empty.embed_multi(["cat", "dog dog"])
    with pytest.raises(RequestError, match="document 1: the text has no token that counts"):
        empty.rerank("cat", ["cat", ""])


def test_the_best_match_of_each_token_is_told(tmp_path: Path) -> None:
    llm = LLM(pylate_folder(tmp_path))
    (query,), (document,) = llm.embed_multi(QUERY, query=True), llm.embed_multi(DOCUMENTS[0])
    places, alike = query.best_matches(document)
    assert np.array_equal(places, (query.vectors @ document.vectors.T).argmax(1))
    assert alike.sum() == query.max_sim(document)


def test_a_window_that_hides_the_whole_query_from_a_mask_token_is_an_error(tmp_path: Path) -> None:
    model = {"local_attention": 16, "global_attn_every_n_layers": 2}
    llm = LLM(pylate_folder(tmp_path / "m", "ModernBertModel", model=model))
    with pytest.raises(RequestError, match="give a query of 6 tokens or more"):
        llm.embed_multi("dog dog", query=True)
    assert len(llm.embed_multi("dog dog dog", query=True)[0].ids) == LENGTH


def test_deberta_fills_up_queries_only_with_tokens_that_are_attended(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this family's attention cannot do"):
        LLM(pylate_folder(tmp_path / "not", "DebertaV2Model")).rerank("dog", ["cat"])
    folder = pylate_folder(tmp_path / "attended", "DebertaV2Model", attend_to_expansion_tokens=True)
    llm = LLM(folder)
    (query,) = llm.embed_multi(QUERY, query=True)
    np.testing.assert_allclose(query.vectors, expected_query(folder, llm, attends=True), atol=1e-5)


def test_calls_that_do_not_fit_the_model_are_errors_that_name_what_fits(tmp_path: Path) -> None:
    llm = LLM(colbert_folder(tmp_path / "colbert"))
    for call in (llm.embed, llm.embed_tokens):
        with pytest.raises(ModelError, match=r"a vector \(embed_multi\) and orders documents"):
            call("dog")
    with pytest.raises(ModelError, match="writes none: it offers embed, "):
        llm.generate("dog")
    with pytest.raises(ParameterError, match="a text must be a str, not list"):
        llm.embed_multi([[1, 2, 3]])
    wrong: Any = "yes"
    with pytest.raises(ParameterError, match="query must be True or False"):
        llm.embed_multi("dog", query=wrong)
    for name, given in (("instruction", "which"), ("answers", ("a", "b"))):
        arguments: dict[str, Any] = {name: given}
        with pytest.raises(ParameterError, match=f"{name} has no meaning for a model that compares"):
            llm.rerank("dog", ["cat"], **arguments)
    plain = LLM(encoder_folder(tmp_path / "plain"))
    with pytest.raises(ModelError, match="was not trained to give each token a vector of its own"):
        plain.embed_multi("dog")
    with pytest.raises(ModelError, match="open a cross-encoder or a ColBERT model"):
        plain.rerank("dog", ["cat"])


def test_folders_that_contradict_themselves_are_errors(tmp_path: Path) -> None:
    def check(folder: Path, message: str) -> None:
        with pytest.raises(ModelError, match=message):
            LLM(folder).rerank("dog", ["cat"])

    def colbert(**artifact: Any) -> Path:
        return colbert_folder(tmp_path / str(len(list(tmp_path.iterdir()))), **artifact)

    def pylate(**settings: Any) -> Path:
        return pylate_folder(tmp_path / str(len(list(tmp_path.iterdir()))), **settings)

    def masked(**more: Any) -> Path:
        return masked_folder(tmp_path / str(len(list(tmp_path.iterdir()))), **more)

    check(colbert(dim=DIM + 1), "dim is 11; the projection has 10 rows")
    check(colbert(interaction="flipr"), "interaction is 'flipr'; it must be colbert")
    check(colbert(similarity="dot"), "similarity is 'dot'; it must be cosine or l2")
    check(colbert(query_token_id="[gone]"), r"has no token '\[gone\]', which the folder puts before texts")
    check(colbert(query_maxlen=65), "filled up to 65 tokens, and the model reads 64")
    check(pylate(skiplist_words="all"), "skiplist_words is 'all'; it must be a list of texts")
    check(masked(mask={"keep_only_token_ids": [3]}), "models of images are not supported")
    strategy = {"query_expansion": {"strategy": "odd", "length": 8}}
    check(masked(transformer=strategy), "strategy is 'odd'; it must be fixed or min")
    token = {"query_expansion": {"strategy": "min", "length": 8, "token": "[gone]"}}
    check(masked(transformer=token), r"has no token '\[gone\]', with which queries are filled up")
    folder = masked()
    write_json(folder / "3_Normalize" / "config.json", {"module_input_name": "sentence_embedding"})
    check(folder, "module_input_name is 'sentence_embedding'; it must be token_embeddings")
    folder = pylate()
    dense = json.loads((folder / "1_Dense" / "config.json").read_text())
    write_json(folder / "1_Dense" / "config.json", {**dense, "module_input_name": "sentence_embedding"})
    check(folder, "module_input_name is 'sentence_embedding'; it must be token_embeddings")
    folder = masked()
    listed = json.loads((folder / "modules.json").read_text())
    pooling = {"idx": 4, "name": "4", "path": "4_P", "type": "sentence_transformers.x.TokenPooling"}
    write_json(folder / "modules.json", [*listed, pooling])
    check(folder, "lists a TokenPooling, which is not supported for vectors of tokens")
    folder = colbert()
    weights = load_file(folder / "model.safetensors")
    del weights["linear.weight"]
    save_file(weights, folder / "model.safetensors")
    check(folder, "linear.weight is missing; it must map the 24 numbers of a state")
    save_file({**weights, "linear.weight": torch.ones(4, 23)}, folder / "model.safetensors")
    check(folder, r"linear.weight has the shape \[4, 23\]")
    mean = sentence_folder(tmp_path / "mean", (MEAN,))
    check(mean, "has no head of classes")
    folder = colbert()
    broken = load_file(folder / "model.safetensors")
    broken["linear.weight"][0] = float("nan")
    save_file(broken, folder / "model.safetensors")
    check(folder, "vectors that are not finite")


def test_a_folder_of_the_authors_without_settings_has_theirs(tmp_path: Path) -> None:
    folder = colbert_folder(tmp_path)
    (folder / "artifact.metadata").unlink()
    llm = LLM(folder)
    (query,) = llm.embed_multi(QUERY, query=True)
    assert (query.tokens, llm.text_limit) == (32, 64)
