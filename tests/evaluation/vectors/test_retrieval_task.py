from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery import ParameterError
from decodery.evaluation.tasks.vector_tasks import RETRIEVAL
from decodery.evaluation.vectors import retrieval_task
from decodery.evaluation.vectors.rankings import nearest
from tests.evaluation.vectors.fake_encoder import FakeEncoder, by_words, write_lines

CORPUS = [
    {"_id": "d1", "title": "sun", "text": "sun"},
    {"_id": "d2", "title": "", "text": "moon"},
    {"_id": "d3", "text": "sun moon"},
    {"_id": "d4", "text": "rock rock rock..."},
]
QUERIES = [
    {"_id": "q1", "text": "sun"},
    {"_id": "q2", "text": "moon"},
    {"_id": "q3", "text": "rock"},
    {"_id": "q4", "text": "not judged"},
]
GRADES = [("q1", "d3", 2), ("q1", "d1", 1), ("q1", "d9", 1), ("q2", "d4", 0), ("q3", "d4", 1)]


def written(folder: Path, grades: Any = tuple(GRADES)) -> Path:
    write_lines(folder / "corpus.jsonl", CORPUS)
    write_lines(folder / "queries.jsonl", QUERIES)
    lines = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in grades)
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return folder


def encoder() -> FakeEncoder:
    return FakeEncoder(by_words("sun", "moon", "rock"))


def test_results_are_those_that_one_counts_by_hand(tmp_path: Path) -> None:
    data = RETRIEVAL.read(written(tmp_path))
    found = RETRIEVAL.evaluate(data, encoder(), seed=0)
    first, second, third = (one.outcome for one in found.samples)
    # d1 and d3 are first, in this order; d9 is not in the corpus, and counts as not found.
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert first.predicted[:2] == ["d1", "d3"]
    assert first.values["ndcg@10"] == pytest.approx((1 + 2 / math.log2(3)) / ideal)
    assert first.values["map"] == pytest.approx(2 / 3)
    assert first.values["mrr"] == 1
    assert first.values["recall@10"] == pytest.approx(2 / 3)
    assert first.counts["relevant documents that are missing"] == 1
    assert second.values["ndcg@10"] is None
    assert second.counts["without relevant documents"] == 1
    assert third.values["ndcg@10"] == 1
    assert next(iter(found.results)) == "ndcg@10"
    assert found.results["mrr"].value == 1
    assert (found.results["mrr"].counted, found.results["mrr"].undefined) == (2, 1)
    assert "3 judged queries" in found.results["mrr"].settings
    assert "1 of them cut" in found.results["mrr"].settings
    assert "3 judged queries of 4, 4 documents" in data.source


def test_queries_and_documents_are_told_apart_and_a_title_comes_first(tmp_path: Path) -> None:
    asked = encoder()
    RETRIEVAL.evaluate(RETRIEVAL.read(written(tmp_path)), asked, seed=0)
    assert [text for text, role in asked.asked if role == "query"] == ["sun", "moon", "rock"]
    assert [text for text, role in asked.asked if role == "document"] == [
        "sun sun",
        "moon",
        "sun moon",
        "rock rock rock...",
    ]


def test_chunks_change_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(0)
    words = [f"w{i}" for i in range(6)]
    corpus = [{"_id": f"d{i}", "text": " ".join(rng.choices(words, k=4))} for i in range(57)]
    queries = [{"_id": f"q{i}", "text": " ".join(rng.choices(words, k=2))} for i in range(9)]
    folder = written(tmp_path, [(f"q{i}", f"d{rng.randrange(57)}", 1) for i in range(9)])
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", queries)
    data = RETRIEVAL.read(folder)
    whole = RETRIEVAL.evaluate(data, FakeEncoder(by_words(*words)), seed=0)
    small = FakeEncoder(by_words(*words))
    monkeypatch.setattr(retrieval_task.chunks, "__defaults__", (5,))
    assert RETRIEVAL.evaluate(data, small, seed=0) == whole
    assert small.largest == 9


def test_the_nearest_rows_are_those_of_all_rows_sorted() -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(7, 5)).astype(np.float32)
    rows = rng.normal(size=(40, 5)).astype(np.float32)
    rows[20] = rows[3]
    scores, places = nearest(queries, [rows[:1], rows[1:25], rows[25:]], 12)
    unit = [one / np.linalg.norm(one.astype(np.float64), axis=1, keepdims=True) for one in (queries, rows)]
    expected = (unit[0] @ unit[1].T).astype(np.float32)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :12]
    assert (places == order).all()
    assert scores == pytest.approx(np.take_along_axis(expected, order, 1), abs=1e-6)
    # Equal documents have equal scores, so that neither is before the other.
    everything, of = nearest(queries, [rows], 40)
    for row, numbers in zip(everything, of.tolist(), strict=True):
        assert row[numbers.index(20)] == row[numbers.index(3)]


def faulty(folder: Path, name: str, line: str) -> None:
    path = folder / name
    path.write_text(path.read_text() + line + "\n")


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("corpus.jsonl", '{"_id": "d1", "text": "again"}', "corpus.jsonl: two texts have the id d1"),
        ("corpus.jsonl", '{"_id": "d8"}', "corpus.jsonl, line 5 has no text"),
        ("corpus.jsonl", "{", "corpus.jsonl, line 5 is not JSON"),
        ("queries.jsonl", '{"_id": "q1", "text": "again"}', "line 5: two queries have the id q1"),
        ("qrels/test.tsv", "q9\td1\t1", "test.tsv, row 6: there is no query q9"),
        ("qrels/test.tsv", "q1\td1\t1", "row 6: query q1 and document d1 are judged twice"),
        ("qrels/test.tsv", "q1\td2\thigh", "row 6: score is no number"),
    ],
)
def test_a_faulty_row_is_one_error_with_its_place(tmp_path: Path, name: str, line: str, message: str) -> None:
    folder = written(tmp_path)
    faulty(folder, name, line)
    with pytest.raises(ParameterError, match=message):
        RETRIEVAL.read(folder)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="holds none of corpus"):
        RETRIEVAL.read(tmp_path)
    folder = written(tmp_path)
    (folder / "qrels" / "test.tsv").unlink()
    with pytest.raises(ParameterError, match="has no file test, dev or validation"):
        RETRIEVAL.read(folder)
