"""Offers an index of files that is searched by meaning and by words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

import numpy as np

from decodery.errors import ModelError, ParameterError, RequestError
from decodery.llm import LLM
from decodery.search.chunks import By, Chunking
from decodery.search.keywords import Keywords
from decodery.search.nearest import EXACT_TO, VectorGraph, graph_of
from decodery.search.ranking import Vectors, fused, highest, prepared, similarities
from decodery.search.store import IndexStore, Keys, StoredChunk
from decodery.search.text_vectors import Embedder, EncoderEmbedder
from decodery.search.writing import IndexChanges, IndexWriter, Progress
from decodery.version import __version__

# How many of the best of each ranking are fused, and how many of the best are read by a reranker.
FEWEST_FUSED, FUSED_PER_HIT = 100, 5
FEWEST_RERANKED, RERANKED_PER_HIT = 50, 3


class RankedDocument(Protocol):
    """Holds a document's place in the given list, and its score from a reranker."""

    @property
    def index(self) -> int:
        """Returns the place in the given list."""
        ...

    @property
    def score(self) -> float:
        """Returns the score for the query."""
        ...


class Reranker(Protocol):
    """Reads a query together with each document, as an `LLM` does that holds a cross-encoder."""

    def rerank(self, query: str, documents: Sequence[str], *, long: Any) -> Sequence[RankedDocument]:
        """Returns the documents, the best first."""
        ...


@dataclass(frozen=True)
class SearchHit:
    """Holds a chunk that was found: its file, first and last line, the headings above it, and its text.

    `score` orders the hits: the similarity, the fused ranks of a hybrid search, or the reranker's score.
    `similarity` is that of the vectors, `keyword_score` the BM25 score of a hybrid search.
    """

    file: Path
    line: int
    end_line: int
    heading: str
    text: str
    score: float
    similarity: float
    keyword_score: float | None = None


class _Found(NamedTuple):
    """Holds the place of a chunk among all in the order of files, and its scores."""

    place: int
    score: float
    similarity: float
    keyword_score: float | None = None


class SearchIndex:
    """Holds an index of files in a folder: their chunks, and the vectors that a model gives these.

    `model` is an `LLM` that holds an encoder, or any `Embedder`. `by` are the chunks: lines, paragraphs,
    sections of Markdown, or "auto", which are sections of Markdown files and paragraphs of others. None are
    those of the index, and "auto" for a new one. With more than `exact_to` chunks, a search compares the
    query with the candidates of a graph, otherwise with all.

    Several processes may read and change the index. A process that is killed leaves each file as it was
    before or as it is now. Raises `ModelError` for an index that is damaged or was made with another model.
    """

    def __init__(
        self, folder: str | Path, model: LLM | Embedder, *, by: By | None = None, exact_to: int = EXACT_TO
    ) -> None:
        if by is not None and by not in get_args(By):
            raise ParameterError(f"by must be one of {', '.join(get_args(By))}, not {by!r}")
        self._embedder: Embedder = EncoderEmbedder(model) if isinstance(model, LLM) else model
        self._store = IndexStore(Path(folder).expanduser())
        chunking = Chunking(
            _agreed(self._store, self._embedder, by), self._embedder.limit, self._embedder.count
        )
        self._writer = IndexWriter(self._store, self._embedder, chunking)
        self._exact_to = exact_to
        self._keywords: tuple[int, Keywords] | None = None
        self._graph: tuple[int, VectorGraph] | None = None

    def __enter__(self) -> SearchIndex:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files of the index."""
        self._store.close()

    @property
    def folder(self) -> Path:
        """Returns the folder of the index."""
        return self._store.folder

    @property
    def files(self) -> list[Path]:
        """Returns the files of the index, in the order of their paths."""
        return [Path(path) for path in self._store.files()]

    def __len__(self) -> int:
        """Returns the number of chunks."""
        return self._store.size()

    def update(self, files: Iterable[str | Path], *, progress: Progress | None = None) -> IndexChanges:
        """Makes the index that of these files and folders, and returns what has changed.

        A file is read again if its size or time is another, and its vectors are computed again if its content
        is. Files that are not among these, or are gone, are removed. `progress` is called with the bytes done
        and those in all. Raises `RequestError` for a file that cannot be read or is no text.
        """
        return self._writer.update(files, progress)

    def add(self, files: Iterable[str | Path], *, progress: Progress | None = None) -> IndexChanges:
        """Adds files and folders, or what has changed in them, and returns what has changed.

        Raises `RequestError` for a file that cannot be read or is no text.
        """
        return self._writer.add(files, progress)

    def remove(self, files: Iterable[str | Path]) -> None:
        """Removes files, and all that are in folders. Raises `RequestError` for one that is not there."""
        self._writer.remove(files)

    def search(
        self, query: str, *, top: int = 10, hybrid: bool = False, reranker: Reranker | None = None
    ) -> list[SearchHit]:
        """Returns the `top` best chunks for a query, the best first; all, if there are fewer.

        With `hybrid`, the rankings by vectors and by words (BM25) are fused by reciprocal ranks. A `reranker`
        reads the best of them together with the query. Hits with the same score are in the order of their
        files. Raises `ParameterError` for arguments out of range, `RequestError` for a query that is empty or
        too long, and `DecoderyError` without a library that the search needs.
        """
        if type(top) is not int or top < 1:
            raise ParameterError(f"top must be a whole number from 1 on, not {top!r}")
        if not isinstance(query, str) or not query.strip():
            raise RequestError("the query is empty: give some text")
        vector = self._query(query)
        count = top if reranker is None else max(FEWEST_RERANKED, RERANKED_PER_HIT * top)
        graph = self._current_graph()
        with self._store.reading():
            keys = self._store.keys()
            found = (
                self._fused(query, vector, keys, count, graph)
                if hybrid
                else self._nearest(vector, keys, count, graph)
            )
            chunks = self._store.chunks([int(keys[one.place]) for one in found])
        hits = [
            SearchHit(Path(chunk.path), *chunk[1:5], one.score, one.similarity, one.keyword_score)
            for chunk, one in zip(chunks, found, strict=True)
        ]
        return hits if reranker is None else _reranked(reranker, query, chunks, hits)[:top]

    def contents(self) -> tuple[list[StoredChunk], Vectors]:
        """Returns all chunks in the order of files, and their vectors [chunks, width] as they compare."""
        with self._store.reading():
            chunks = self._store.chunks(self._store.keys().tolist())
            blocks = [prepared(vectors, self._embedder.metric) for _, vectors in self._store.blocks()]
        return chunks, np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)

    def _query(self, query: str) -> Vectors:
        vector = np.asarray(self._embedder.query(query), np.float32)
        if not np.isfinite(vector).all():
            raise ModelError("the query's vector is not finite (NaN or infinity): check the model's weights")
        query_vector: Vectors = prepared(vector[None], self._embedder.metric)[0]
        return query_vector

    def _current_graph(self) -> VectorGraph | None:
        """Returns the graph of a large index, built first if it is not there; None for a smaller index."""
        # A graph of such distances would need another one for each.
        if self._store.size() <= self._exact_to or self._embedder.metric == "manhattan":
            return None
        if self._graph is None or self._graph[0] != self._store.version:
            with self._writer.lock():
                self._graph = self._store.version, graph_of(self._store, self._embedder.metric)
        return self._graph[1]

    def _nearest(self, vector: Vectors, keys: Keys, count: int, graph: VectorGraph | None) -> list[_Found]:
        """Returns the chunks with the most similar vectors, whose scores are exact in any case."""
        metric = self._embedder.metric
        if graph is None:
            blocks = (prepared(vectors, metric) for _, vectors in self._store.blocks())
            scores = np.concatenate(
                [np.empty(0, np.float32), *(similarities(block, vector, metric) for block in blocks)]
            )
            return [_Found(int(p), float(scores[p]), float(scores[p])) for p in highest(scores, count)]
        places = _places(keys, graph.nearest(vector, count))
        similar = self._similarities(vector, keys, places)
        return [_Found(int(places[p]), float(similar[p]), float(similar[p])) for p in highest(similar, count)]

    def _similarities(self, vector: Vectors, keys: Keys, places: Keys) -> Vectors:
        vectors = self._store.vectors_of(keys[places].tolist())
        return similarities(prepared(vectors, self._embedder.metric), vector, self._embedder.metric)

    def _fused(
        self, query: str, vector: Vectors, keys: Keys, count: int, graph: VectorGraph | None
    ) -> list[_Found]:
        """Returns the chunks that are best by vectors and by words together."""
        if not len(keys):
            return []
        deep = max(FEWEST_FUSED, FUSED_PER_HIT * count)
        by_vectors = [one.place for one in self._nearest(vector, keys, deep, graph)]
        scores = self._current_keywords().scores(query)
        by_words = [int(place) for place in highest(scores, deep) if scores[place] > 0]
        ranks = fused([by_vectors, by_words])
        best = sorted(ranks, key=lambda place: (-ranks[place], place))[:count]
        similar = self._similarities(vector, keys, np.array(best, np.int64))
        return [
            _Found(place, ranks[place], float(similarity), float(scores[place]))
            for place, similarity in zip(best, similar, strict=True)
        ]

    def _current_keywords(self) -> Keywords:
        version = self._store.version
        if self._keywords is None or self._keywords[0] != version:
            self._keywords = version, Keywords(self._store.passages())
        return self._keywords[1]


def _agreed(store: IndexStore, embedder: Embedder, by: By | None) -> By:
    """Returns the chunks of the index; writes the header of a new one, and checks that of an older one."""
    known = store.header("identity")
    chosen: By = by or (known or {}).get("chunks", "auto")
    store.agree(
        {
            **embedder.identity,
            "metric": embedder.metric,
            "chunks": chosen,
            "tokens of a chunk": embedder.limit,
            "dtype": "float32",
        },
        __version__,
    )
    return chosen


def _places(keys: Keys, wanted: Keys) -> Keys:
    """Returns the places of wanted keys among all, in the order of places."""
    order = np.argsort(keys)
    # Another process may have removed a chunk meanwhile.
    wanted = wanted[np.isin(wanted, keys)]
    return np.sort(order[np.searchsorted(keys, wanted, sorter=order)])


def _reranked(
    reranker: Reranker, query: str, chunks: Sequence[StoredChunk], hits: Sequence[SearchHit]
) -> list[SearchHit]:
    if not hits:
        return []
    ranked = reranker.rerank(query, [chunk.above + chunk.text for chunk in chunks], long="cut")
    return [replace(hits[one.index], score=one.score) for one in ranked]
