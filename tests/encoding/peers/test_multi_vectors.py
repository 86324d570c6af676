"""Compares vectors of tokens with those of sentence-transformers, which reads all three layouts."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import LLM
from tests.encoding.colbert_folders import colbert_folder, masked_folder, pylate_folder

QUERIES = ["what is the river", "who", "the dog sat, on a mat of the river"]
DOCUMENTS = ["the dog sat on the mat.", "", "bank of the river, and money!!! what", "?! ,", "cat é " * 30]
ATTENDED = {"strategy": "fixed", "attend": True, "length": 14}
LEAST = {"strategy": "min", "attend": False, "length": 8}
MARKS = {"skiplist_words": list(string.punctuation)}
FOLDERS: Mapping[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "authors": (colbert_folder, {}),
    "authors, attended": (colbert_folder, {"attend_to_mask_tokens": True}),
    "authors, punctuation": (colbert_folder, {"mask_punctuation": False}),
    "pylate": (pylate_folder, {}),
    "pylate, attended": (pylate_folder, {"attend_to_expansion_tokens": True}),
    "pylate, not filled up": (pylate_folder, {"do_query_expansion": False}),
    "pylate, byte pairs": (pylate_folder, {"architecture": "RobertaModel", "tokenizer": "byte pairs"}),
    "pylate, prompts": (pylate_folder, {"prompts": {"query": "question ", "document": "text "}}),
    "masked": (masked_folder, {"mask": MARKS}),
    "masked, attended": (masked_folder, {"transformer": {"query_expansion": ATTENDED}}),
    "masked, least": (masked_folder, {"transformer": {"query_expansion": LEAST, "query_length": 12}}),
    "masked, queries": (masked_folder, {"mask": {**MARKS, "skiplist_tasks": ["query"]}}),
    "masked, mean": (masked_folder, {"similarity_fn_name": "meanmaxsim"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_vectors_and_scores_are_those_of_sentence_transformers(
    library: Any, tmp_path: Path, name: str
) -> None:
    make, settings = FOLDERS[name]
    folder = make(tmp_path / "folder", **settings)
    ours, theirs = LLM(folder), library.MultiVectorEncoder(str(folder), device="cpu")
    queries, documents = theirs.encode_query(QUERIES), theirs.encode_document(DOCUMENTS)
    found = [*ours.embed_multi(QUERIES, query=True, long="cut"), *ours.embed_multi(DOCUMENTS, long="cut")]
    for one, right in zip(found, [*queries, *documents], strict=True):
        np.testing.assert_allclose(one.vectors, np.asarray(right), atol=2e-6)
    scores = np.asarray(theirs.similarity(queries, documents))
    for query, row in zip(QUERIES, scores, strict=True):
        ranked = {one.index: one.score for one in ours.rerank(query, DOCUMENTS, long="cut")}
        np.testing.assert_allclose([ranked[index] for index in range(len(row))], row, rtol=1e-5)
