"""Judges rankings of documents, and finds the documents that are nearest to queries."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Outcome, Sample
from decodery.evaluation.layouts.splits import files_of
from decodery.evaluation.layouts.tables import find_file
from decodery.evaluation.vectors.contract import Floats
from decodery.evaluation.vectors.vector_files import number_of, stored_rows, text_of
from decodery.metrics.retrieval import average_precision, ndcg_of_ranking, recall_at_k, reciprocal_rank
from decodery.metrics.score import Score, mean

# Documents of a query that are ranked, those that a sample tells, and the smallest length of a vector.
RANKED, SHOWN, SMALLEST = 1000, 10, 1e-12
QUERIES = 512
SPLITS = ("test", "dev", "validation")
METRICS = ("ndcg@10", "map", "mrr", "recall@10", "recall@100")


def read_queries(folder: Path) -> dict[str, str]:
    """Returns the texts of the queries by their ids."""
    found: dict[str, str] = {}
    for place, row in stored_rows(find_file(folder, "queries")):
        query = text_of(row, place, "_id", "id")
        if query in found:
            raise ParameterError(f"{place}: two queries have the id {query}")
        found[query] = text_of(row, place, "text")
    return found


def read_grades(folder: Path, queries: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Returns the grades of the judged documents by query, from the folder or file "qrels"."""
    inner = folder / "qrels"
    if inner.is_dir():
        files = next((of_split for split in SPLITS if (of_split := files_of(inner, split))), [])
        if not files:
            raise ParameterError(f"{inner} has no file test, dev or validation")
    else:
        files = [find_file(folder, "qrels")]
    found: dict[str, dict[str, float]] = {}
    for file in files:
        for place, row in stored_rows(file):
            query, document = (str_of(row, place, name) for name in ("query-id", "corpus-id"))
            if query not in queries:
                raise ParameterError(f"{place}: there is no query {query}")
            grades = found.setdefault(query, {})
            if document in grades:
                raise ParameterError(f"{place}: query {query} and document {document} are judged twice")
            grades[document] = number_of(row, place, "score")
    return found


def str_of(row: Mapping[str, object], place: str, name: str) -> str:
    """Returns an id, which may be a number in the file. Raises `ParameterError` without one."""
    value = row.get(name)
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise ParameterError(f"{place} has no {name}; it has {', '.join(map(str, row))}")
    return str(value)


def nearest(
    queries: Floats, chunks: Iterable[Floats], count: int = RANKED
) -> tuple[Floats, NDArray[np.int64]]:
    """Returns the cosines and the places [queries, count] of the rows that are nearest to each query.

    Only one of the chunks [rows, width] is in memory at a time. Equal cosines are in the order of the rows.
    """
    asked = unit(queries)
    scores = np.zeros((len(asked), 0), np.float32)
    places = np.zeros((len(asked), 0), np.int64)
    begin = 0
    for chunk in chunks:
        rows = unit(chunk)
        numbers = np.arange(begin, begin + len(rows))
        merged = [
            _merged(
                scores[i : i + QUERIES], places[i : i + QUERIES], asked[i : i + QUERIES], rows, numbers, count
            )
            for i in range(0, len(asked), QUERIES)
        ]
        scores = np.concatenate([one for one, _ in merged])
        places = np.concatenate([one for _, one in merged])
        begin += len(rows)
    return scores, places


def _merged(
    scores: Floats,
    places: NDArray[np.int64],
    queries: NDArray[np.float64],
    rows: NDArray[np.float64],
    numbers: NDArray[np.int64],
    count: int,
) -> tuple[Floats, NDArray[np.int64]]:
    found = cosines(queries, rows)
    everything = np.concatenate([scores, found], 1)
    of = np.concatenate([places, np.broadcast_to(numbers, found.shape)], 1)
    order = np.argsort(-everything, axis=1, kind="stable")[:, :count]
    return np.take_along_axis(everything, order, 1), np.take_along_axis(of, order, 1)


def unit(vectors: Floats) -> NDArray[np.float64]:
    """Returns vectors of length 1, and 0 for those without a length."""
    rows = vectors.astype(np.float64)
    lengths = np.sqrt((rows * rows).sum(1, keepdims=True))
    found: NDArray[np.float64] = rows / np.maximum(lengths, SMALLEST)
    return found


def cosines(one: NDArray[np.float64], other: NDArray[np.float64]) -> Floats:
    """Returns the products of rows of length 1. Rounding makes those of equal rows equal."""
    found: Floats = (one @ other.T).astype(np.float32)
    return found


def judged(query: Document, ranking: Mapping[Hashable, float], missing: Sequence[str], lost: int) -> Sample:
    """Returns the sample of a query with a ranking, in the order of the scores, of documents by their ids.

    `missing` are relevant documents that could not be ranked.
    """
    grades: Mapping[Hashable, float] = query.fields["grades"]
    found = {
        "ndcg@10": ndcg_of_ranking(grades, ranking, 10).value,
        "map": average_precision(grades, ranking).value,
        "mrr": reciprocal_rank(grades, ranking).value,
        "recall@10": recall_at_k(grades, ranking, 10).value,
        "recall@100": recall_at_k(grades, ranking, 100).value,
    }
    without = all(grade <= 0 for grade in grades.values())
    outcome = Outcome(
        found,
        gold=sorted(str(document) for document, grade in grades.items() if grade > 0),
        predicted=list(ranking)[:SHOWN],
        why="no document is relevant" if without else "",
        counts={
            "without relevant documents": int(without),
            "relevant documents that are missing": len(missing),
            "cut": int(lost > 0),
        },
        details={"scores": list(ranking.values())[:SHOWN]},
    )
    return Sample(query, outcome)


def over_queries(samples: Sequence[Sample], settings: str) -> dict[str, Score]:
    """Returns the mean of each metric over the judged queries that have relevant documents."""
    return {
        name: mean(
            [sample.outcome.values[name] for sample in samples],
            settings=f"{len(samples)} judged queries; {settings}; expected value over ties",
        )
        for name in METRICS
    }
