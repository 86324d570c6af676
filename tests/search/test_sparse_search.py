"""Tests the search by sparse vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from decodery import LLM
from decodery.search.sparse_search import sparse_hits
from tests.encoding.folders import encoder_folder


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


def test_files_without_text_have_no_hits(llm: LLM, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    assert sparse_hits("river", [tmp_path], llm) == []
