"""Finds near vectors among very many through a graph of neighbours, kept in a file beside the index."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decodery.encoding.vectors.vector_settings import Metric
from decodery.search.extras import extra
from decodery.search.ranking import Vectors, highest, prepared
from decodery.search.store import IndexStore, Keys

EXACT_TO = 100_000
"""The number of vectors up to which each query is compared with all of them."""

RECALL = 0.97
"""The part of the ten nearest vectors that a graph must find for vectors that are not in it."""

# Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using HNSW graphs (2016):
# links of a vector, and candidates while it is added.
LINKS, ADDING = 16, 128
FEWEST_CANDIDATES, MOST_CANDIDATES = 256, 1 << 16
SAMPLED, NEIGHBOURS = 64, 10
# Further candidates that are compared exactly: the graph's vectors have half the precision.
MORE = 16
# Removed vectors stay in the graph as bridges. With so large a part of them it is built anew.
MOST_REMOVED = 0.25
HEADER = "graph"
CHUNK = 1 << 22


class VectorGraph:
    """Holds a graph of the vectors of a store; its metric and types are those of our own header.

    Raises `DecoderyError` without the library.
    """

    def __init__(self, metric: Metric, width: int, candidates: int = FEWEST_CANDIDATES) -> None:
        usearch: Any = extra("usearch.index", f"searching more than {EXACT_TO} chunks")
        # Vectors of length 1 need no larger numbers than half precision has.
        self._graph: Any = usearch.Index(
            ndim=width,
            metric="l2sq" if metric == "euclidean" else "ip",
            dtype="f16" if metric == "cosine" else "f32",
            connectivity=LINKS,
            expansion_add=ADDING,
            expansion_search=candidates,
        )
        self._metric: Metric = metric

    def nearest(self, query: Vectors, count: int) -> Keys:
        """Returns the keys of `count` or more vectors near a prepared query, or of all there are."""
        count = min(count + MORE, len(self._graph))
        if count == 0:
            return np.empty(0, np.int64)
        self._graph.expansion_search = max(self._graph.expansion_search, count)
        return np.asarray(self._graph.search(query, count).keys).astype(np.int64)

    def update(self, store: IndexStore) -> None:
        """Adds the store's new vectors, and removes those that it no longer has.

        Some of the new vectors are added last: they are first searched for, to find how many candidates a
        search needs. A vector that is in the graph would be found with fewer candidates than a query.
        """
        held = self._held()
        keys = store.keys()
        gone = np.setdiff1d(held, keys)
        if len(gone):
            self._graph.remove(gone)
        new = np.setdiff1d(keys, held)
        unseen = new[np.linspace(0, len(new) - 1, min(SAMPLED, len(new) // 2)).astype(np.int64)]
        for block, vectors in store.blocks():
            added = np.isin(block, new) & ~np.isin(block, unseen)
            if added.any():
                self._graph.add(block[added], prepared(vectors[added], self._metric))
        if len(unseen):
            queries = prepared(store.vectors_of(unseen.tolist()), self._metric)
            self._find_candidates(queries, _exact(store, queries, self._metric, unseen))
            self._graph.add(unseen, queries)

    def outdated(self, store: IndexStore) -> bool:
        """True if so many of the vectors are no longer in the store that a new graph is better."""
        held = self._held()
        return len(np.setdiff1d(held, store.keys())) > MOST_REMOVED * len(held)

    def _held(self) -> Keys:
        """Returns the keys of the vectors in the graph."""
        if not len(self._graph):
            return np.empty(0, np.int64)
        return np.asarray(self._graph.keys).astype(np.int64)

    def _find_candidates(self, queries: Vectors, exact: Sequence[Keys]) -> None:
        """Doubles the number of candidates of a search until it finds nearly all of the nearest vectors."""
        while self._graph.expansion_search < MOST_CANDIDATES:
            found = [self.nearest(query, NEIGHBOURS) for query in queries]
            hits = [len(np.intersect1d(one, other)) for one, other in zip(found, exact, strict=True)]
            if sum(hits) >= RECALL * sum(map(len, exact)):
                return
            self._graph.expansion_search *= 2

    def save(self, store: IndexStore, version: int) -> None:
        """Writes the graph beside the store, in the place of an older one, as a whole or not at all."""
        with tempfile.NamedTemporaryFile(
            dir=store.folder, prefix="graph-", suffix=".usearch", delete=False
        ) as file:
            path = Path(file.name)
        try:
            self._graph.save(str(path))
            with path.open("rb+") as written:
                os.fsync(written.fileno())
            entry = {
                "file": path.name,
                "bytes": path.stat().st_size,
                "crc": _crc(path),
                "version": version,
                "candidates": self._graph.expansion_search,
            }
            with store.transaction():
                store.set_header(HEADER, entry)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        for other in store.folder.glob("graph-*.usearch"):
            if other != path:
                # Windows keeps a file that another process has mapped.
                with suppress(OSError):
                    other.unlink(missing_ok=True)

    @classmethod
    def opened(cls, store: IndexStore, metric: Metric, *, view: bool) -> VectorGraph | None:
        """Returns the store's graph, mapped into memory for a `view`; None without an undamaged one."""
        entry = store.header(HEADER)
        if entry is None:
            return None
        path = store.folder / entry["file"]
        try:
            if path.stat().st_size != entry["bytes"] or _crc(path) != entry["crc"]:
                return None
        except OSError:
            return None
        graph = cls(metric, store.header("width"), entry["candidates"])
        graph._graph.view(str(path)) if view else graph._graph.load(str(path))
        graph._graph.expansion_search = entry["candidates"]
        return graph


def graph_of(store: IndexStore, metric: Metric) -> VectorGraph:
    """Returns the graph of the vectors of a store; builds what is missing and writes it."""
    version = store.version
    entry = store.header(HEADER)
    if entry is not None and entry["version"] == version:
        graph = VectorGraph.opened(store, metric, view=True)
        if graph is not None:
            return graph
    graph = VectorGraph.opened(store, metric, view=False)
    if graph is None or graph.outdated(store):
        graph = VectorGraph(metric, store.header("width"))
    graph.update(store)
    graph.save(store, version)
    return graph


def _exact(store: IndexStore, queries: Vectors, metric: Metric, left_out: Keys) -> list[Keys]:
    """Returns the keys of the nearest vectors of each query, but for near ties; some keys are left out."""
    nothing: tuple[Keys, NDArray[np.float32]] = np.empty(0, np.int64), np.empty(0, np.float32)
    best = [nothing] * len(queries)
    for block, vectors in store.blocks():
        kept = ~np.isin(block, left_out)
        keys, rows = block[kept], prepared(vectors[kept], metric)
        scores = rows @ queries.T
        if metric == "euclidean":
            scores = 2 * scores - (rows * rows).sum(axis=1)[:, None]
        for place, column in enumerate(scores.T):
            joined = np.concatenate([best[place][0], keys]), np.concatenate([best[place][1], column])
            first = highest(joined[1], NEIGHBOURS)
            best[place] = joined[0][first], joined[1][first]
    return [keys for keys, _ in best]


def _crc(path: Path) -> int:
    return _crc_of(_pieces(path))


def _crc_of(pieces: Iterator[bytes]) -> int:
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return crc


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
