"""Tests the search by sparse vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from decodery import LLM
from decodery.search.sparse_search import sparse_hits
from tests.encoding.folders import encoder_folder, write_json


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    return LLM(encoder_folder(tmp_path_factory.mktemp("splade"), "BertForMaskedLM"))


def test_chunks_are_in_the_order_of_their_products_with_the_query(llm: LLM, tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    lines = ["the dog sat", "bank of the river", "money and bank", "a long text " * 40]
    page.write_text("\n".join(lines))
    hits = sparse_hits("river bank", [page], llm, by="lines", top=3)
    (query,) = llm.embed_sparse("river bank")
    assert len(hits) == 3
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    for hit in hits:
        (document,) = llm.embed_sparse(hit.text)
        assert hit.score == pytest.approx(document.dot(query), rel=1e-6)
    everything = sparse_hits("river bank", [page], llm, by="lines", top=50)
    # The last line is divided, since it is longer than the model reads.
    assert [hit.line for hit in everything].count(4) > 1
    assert [hit.text for hit in everything[:3]] == [hit.text for hit in hits]


def test_chunks_without_a_token_of_the_query_are_no_hits(tmp_path: Path) -> None:
    folder = encoder_folder(tmp_path / "model", "BertForMaskedLM")
    write_json(folder / "config_sentence_transformers.json", {"max_active_dims": 1})
    llm = LLM(folder)
    lines = ["dog", "bank", "river", "money", "cat", "the mat", "paris"]
    page = tmp_path / "page.txt"
    page.write_text("\n".join(lines))
    (query,) = llm.embed_sparse("river")
    alike = {text for text in lines if llm.embed_sparse(text)[0].dot(query)}
    assert len(alike) < len(lines), "some chunk has another token"
    assert {hit.text for hit in sparse_hits("river", [page], llm, by="lines")} == alike


def test_files_without_text_have_no_hits(llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    assert sparse_hits("river", [tmp_path], llm) == []
