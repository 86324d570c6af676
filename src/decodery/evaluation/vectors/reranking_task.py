"""Defines reranking: the order of given documents by their nearness to a query, in MTEB's two layouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from decodery.errors import ParameterError
from decodery.evaluation.contract import Document, Sample
from decodery.evaluation.layouts.splits import files_of
from decodery.evaluation.layouts.tables import find_file
from decodery.evaluation.vectors.contract import Embed, Evaluated, Floats, VectorData
from decodery.evaluation.vectors.rankings import (
    SPLITS,
    cosines,
    judged,
    over_queries,
    read_grades,
    read_queries,
    str_of,
    unit,
)
from decodery.evaluation.vectors.retrieval_task import chunks
from decodery.evaluation.vectors.vector_files import Corpus, required_data, stored_rows, text_of


@dataclass(frozen=True, slots=True)
class RerankingTask:
    """Holds a task of queries with documents that are put in order. The main metric is nDCG@10."""

    name: str = "reranking"
    version: int = 1

    def read(self, data: Path | None) -> VectorData:
        """Reads corpus, queries, qrels and top_ranked of a folder, or rows of query, positive, negative."""
        path = required_data(self.name, data)
        if (path / "qrels").is_dir() or list(path.glob("qrels.*")):
            return self._ranked_folder(path)
        files = [path]
        if path.is_dir():
            files = next((found for split in SPLITS if (found := files_of(path, split))), [])
        if not files:
            raise ParameterError(f"{path} has no qrels, and no file test, dev or validation")
        documents = tuple(_listed(place, row) for file in files for place, row in stored_rows(file))
        if not documents:
            raise ParameterError(f"{path} has no rows")
        return VectorData(documents, {}, ", ".join(file.name for file in files))

    def _ranked_folder(self, folder: Path) -> VectorData:
        queries = read_queries(folder)
        grades = read_grades(folder, queries)
        inner = folder / "top_ranked"
        files = (
            next((found for split in SPLITS if (found := files_of(inner, split))), [])
            if inner.is_dir()
            else []
        )
        ranked = _candidates(files or [find_file(folder, "top_ranked")], queries)
        lacking = next((query for query in grades if query not in ranked), None)
        if lacking is not None:
            raise ParameterError(
                f"{folder}: query {lacking} is judged, and top_ranked has no documents for it"
            )
        needed = {one for query in grades for one in ranked[query]}
        corpus = Corpus(find_file(folder, "corpus"))
        texts = {document.id: document.fields["text"] for document in corpus if document.id in needed}
        for query in grades:
            unknown = [one for one in ranked[query] if one not in texts]
            if unknown:
                raise ParameterError(f"{corpus.path} lacks document {unknown[0]}, which query {query} ranks")
        documents = tuple(
            Document(
                query,
                {
                    "text": text,
                    "grades": grades[query],
                    "candidates": {one: texts[one] for one in ranked[query]},
                },
            )
            for query, text in queries.items()
            if query in grades
        )
        return VectorData(documents, {}, f"{folder.name}: {len(documents)} judged queries of {len(queries)}")

    def evaluate(self, data: VectorData, embed: Embed, *, seed: int) -> Evaluated:
        """Returns the metrics of the documents in the order of their cosines."""
        samples = [sample for block in chunks(data.documents, 64) for sample in _block(block, embed)]
        cut = sum(sample.outcome.details["documents that are cut"] for sample in samples)
        return Evaluated(samples, over_queries(samples, f"given documents, {cut} of them cut"))


def _block(queries: Sequence[Document], embed: Embed) -> list[Sample]:
    asked = embed([query.fields["text"] for query in queries], "query")
    texts = [text for query in queries for text in query.fields["candidates"].values()]
    documents = embed(texts, "document")
    samples, begin = [], 0
    for i, query in enumerate(queries):
        candidates = list(query.fields["candidates"])
        end = begin + len(candidates)
        scores = _cosines(asked.vectors[i], documents.vectors[begin:end])
        order = np.argsort(-scores, kind="stable")
        ranking = {candidates[place]: float(scores[place]) for place in order}
        missing = [one for one, grade in query.fields["grades"].items() if grade > 0 and one not in ranking]
        sample = judged(query, ranking, missing, int(asked.lost[i]))
        cut = int((documents.lost[begin:end] > 0).sum())
        details = {**sample.outcome.details, "documents that are cut": cut}
        samples.append(Sample(query, replace(sample.outcome, details=details)))
        begin = end
    return samples


def _cosines(query: Floats, documents: Floats) -> Floats:
    found: Floats = cosines(unit(query[None]), unit(documents))[0]
    return found


def _candidates(files: Sequence[Path], queries: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        for place, row in stored_rows(file):
            query, listed = str_of(row, place, "query-id"), row.get("corpus-ids")
            if query not in queries:
                raise ParameterError(f"{place}: there is no query {query}")
            if not isinstance(listed, list) or not listed or len(set(map(str, listed))) < len(listed):
                raise ParameterError(f"{place}: corpus-ids must be a list of different ids")
            found[query] = [str(one) for one in listed]
    return found


def _listed(place: str, row: Mapping[str, Any]) -> Document:
    """Returns the document of a row with lists of relevant and other texts."""
    lists: dict[str, list[str]] = {}
    for name in ("positive", "negative"):
        texts = row.get(name)
        if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
            raise ParameterError(f"{place}: {name} must be a list of texts")
        lists[name] = texts
    candidates, grades = {}, {}
    for name, texts in lists.items():
        for number, text in enumerate(texts):
            candidates[f"{name} {number}"] = text
            grades[f"{name} {number}"] = float(name == "positive")
    if not candidates:
        raise ParameterError(f"{place} has no texts to rank")
    return Document(place, {"text": text_of(row, place, "query"), "grades": grades, "candidates": candidates})
