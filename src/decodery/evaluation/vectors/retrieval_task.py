"""Defines retrieval: the documents of a corpus that are nearest to a query, in MTEB's and BEIR's layout."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from decodery.evaluation.contract import Document
from decodery.evaluation.layouts.tables import find_file
from decodery.evaluation.vectors.contract import Embed, Evaluated, Floats, VectorData
from decodery.evaluation.vectors.rankings import (
    RANKED,
    judged,
    nearest,
    over_queries,
    read_grades,
    read_queries,
)
from decodery.evaluation.vectors.vector_files import Corpus, required_data

# Documents whose vectors are in memory together.
CHUNK = 4096


@dataclass(frozen=True, slots=True)
class RetrievalTask:
    """Holds a task of queries that search a corpus. The main metric is nDCG@10."""

    name: str = "retrieval"
    version: int = 1

    def read(self, data: Path | None) -> VectorData:
        """Reads corpus, queries and qrels from a folder. Queries that no line of qrels names are left out."""
        folder = required_data(self.name, data)
        corpus = Corpus(find_file(folder, "corpus"))
        known = corpus.ids()
        queries = read_queries(folder)
        grades = read_grades(folder, queries)
        documents = tuple(
            Document(query, {"text": text, "grades": grades[query]})
            for query, text in queries.items()
            if query in grades
        )
        source = f"{folder.name}: {len(documents)} judged queries of {len(queries)}, {len(known)} documents"
        return VectorData(documents, {"corpus": corpus}, source)

    def evaluate(self, data: VectorData, embed: Embed, *, seed: int) -> Evaluated:
        """Returns the metrics of the first 1,000 documents by cosine for each query.

        Of the corpus, one chunk is in memory at a time, and the ids.
        """
        queries = embed([document.fields["text"] for document in data.documents], "query")
        ids: list[str] = []
        lost = 0

        def vectors() -> Iterator[Floats]:
            nonlocal lost
            for chunk in chunks(data.beside["corpus"]):
                ids.extend(document.id for document in chunk)
                found = embed([document.fields["text"] for document in chunk], "document")
                lost += int((found.lost > 0).sum())
                yield found.vectors

        scores, places = nearest(queries.vectors, vectors())
        known = set(ids)
        samples = [
            judged(
                document,
                {ids[place]: float(score) for place, score in zip(places[i], scores[i], strict=True)},
                [one for one, grade in document.fields["grades"].items() if grade > 0 and one not in known],
                int(queries.lost[i]),
            )
            for i, document in enumerate(data.documents)
        ]
        settings = f"the first {RANKED} of {len(ids)} documents, {lost} of them cut"
        return Evaluated(samples, over_queries(samples, settings))


def chunks(documents: Iterable[Document], size: int = CHUNK) -> Iterator[list[Document]]:
    """Yields documents in lists of this size; the last one may be shorter."""
    found: list[Document] = []
    for document in documents:
        found.append(document)
        if len(found) == size:
            yield found
            found = []
    if found:
        yield found
