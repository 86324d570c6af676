from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from decodery import ParameterError
from decodery.evaluation.tasks.vector_tasks import RERANKING
from tests.evaluation.vectors.fake_encoder import FakeEncoder, by_words, write_lines
from tests.evaluation.vectors.test_retrieval_task import written


def encoder() -> FakeEncoder:
    return FakeEncoder(by_words("sun", "moon", "rock"))


def ranked(folder: Path, *lines: tuple[str, list[str]]) -> Path:
    rows = [{"query-id": query, "corpus-ids": documents} for query, documents in lines]
    write_lines(folder / "top_ranked.jsonl", rows)
    return folder


def test_only_the_given_documents_are_ranked(tmp_path: Path) -> None:
    folder = ranked(
        written(tmp_path), ("q1", ["d2", "d3"]), ("q2", ["d1"]), ("q3", ["d1", "d4"]), ("q4", ["d1"])
    )
    asked = encoder()
    found = RERANKING.evaluate(RERANKING.read(folder), asked, seed=0)
    first, second, third = (one.outcome for one in found.samples)
    # d1 is relevant and not among the given documents: it counts in the best ranking, and as missing.
    assert first.predicted == ["d3", "d2"]
    assert first.values["ndcg@10"] == pytest.approx(2 / (2 + 1 / math.log2(3) + 1 / 2))
    assert first.counts["relevant documents that are missing"] == 2
    assert second.values["map"] is None
    assert third.values["map"] == 1
    assert third.details["documents that are cut"] == 1
    assert found.results["map"].counted == 2
    assert sum(role == "query" for _, role in asked.asked) == 3


def test_rows_with_lists_of_texts_are_ranked_too(tmp_path: Path) -> None:
    rows = [
        {"query": "sun", "positive": ["sun moon", "rock"], "negative": ["sun sun", "moon"]},
        {"query": "moon", "positive": ["moon"], "negative": []},
    ]
    found = RERANKING.evaluate(RERANKING.read(write_lines(tmp_path / "test.jsonl", rows)), encoder(), seed=0)
    first, second = (one.outcome for one in found.samples)
    assert first.predicted[:2] == ["negative 0", "positive 0"]
    # The other two have the cosine 0, so that either may be third.
    assert first.values["map"] == pytest.approx((1 / 2 + (2 / 3 + 2 / 4) / 2) / 2)
    assert second.values["map"] == 1


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([("q1", ["d1"]), ("q2", ["d1"])], "query q3 is judged, and top_ranked has no documents for it"),
        ([("q9", ["d1"])], "top_ranked.jsonl, line 1: there is no query q9"),
        ([("q1", ["d1", "d1"])], "corpus-ids must be a list of different ids"),
        ([("q1", [])], "corpus-ids must be a list of different ids"),
        ([(f"q{i}", ["d8"]) for i in range(1, 4)], "corpus.jsonl lacks document d8, which query q1 ranks"),
    ],
)
def test_faulty_candidates_are_one_error(
    tmp_path: Path, lines: list[tuple[str, list[str]]], message: str
) -> None:
    with pytest.raises(ParameterError, match=message):
        RERANKING.read(ranked(written(tmp_path), *lines))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "a", "positive": ["b"]}, "line 1: negative must be a list of texts"),
        ({"query": "a", "positive": [], "negative": []}, "line 1 has no texts to rank"),
        ({"positive": ["b"], "negative": []}, "line 1 has no query"),
    ],
)
def test_a_faulty_row_is_one_error_with_its_place(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        RERANKING.read(write_lines(tmp_path / "test.jsonl", [row]))
