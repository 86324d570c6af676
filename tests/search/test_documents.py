"""Searches this project's own documents with a real encoder."""

from __future__ import annotations

from pathlib import Path

import pytest

from decodery import LLM, ModelError
from decodery.search import SearchIndex
from decodery.search.chunks import MARKDOWN_ENDS
from decodery.weights.sources.locate import resolve
from tests.search.questions import QUESTIONS

DOCUMENTS = Path(__file__).parent.parent.parent / "docs"


@pytest.fixture(scope="module")
def minilm() -> LLM:
    try:
        return LLM(resolve("minilm"))
    except ModelError as error:
        pytest.skip(f"the encoder is not to be had: {error}")


@pytest.mark.slow
def test_the_page_that_answers_a_question_is_found(minilm: LLM, tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    index = SearchIndex(tmp_path, minilm)
    index.update(path for path in DOCUMENTS.rglob("*") if path.suffix in MARKDOWN_ENDS)
    found = {
        question: [hit.file.relative_to(DOCUMENTS).as_posix() for hit in index.search(question, top=5)]
        for question in QUESTIONS
    }
    missing = {question: pages for question, pages in found.items() if QUESTIONS[question] not in pages}
    assert not missing
    assert sum(pages[0] == QUESTIONS[question] for question, pages in found.items()) >= 15


@pytest.mark.slow
def test_vectors_of_a_renewed_index_have_the_bits_of_a_fresh_one(minilm: LLM, tmp_path: Path) -> None:
    pages = sorted((DOCUMENTS / "learn").glob("*.md"))
    index = SearchIndex(tmp_path / "old", minilm)
    for page in pages:
        index.add([page])
    index.remove(pages[2:4])
    fresh = SearchIndex(tmp_path / "fresh", minilm)
    fresh.update([*pages[:2], *pages[4:]])
    question = "How does beam search work?"
    assert index.search(question, top=50) == fresh.search(question, top=50)
