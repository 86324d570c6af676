from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery.encoding.vectors.vector_settings import Metric
from decodery.search import SearchIndex
from decodery.search.nearest import HEADER, VectorGraph, graph_of
from decodery.search.ranking import highest, prepared, similarities
from decodery.search.store import IndexStore
from tests.search.embedders import WordEmbedder
from tests.search.test_index import index_of, write

pytest.importorskip("usearch")


class Random(WordEmbedder):
    """Gives each text a random vector."""

    def documents(self, texts: Sequence[str]) -> Any:
        seeds = [int(text.rsplit(" ", 1)[1]) for text in texts]
        return np.stack(
            [np.random.default_rng(seed).standard_normal(self.width).astype(np.float32) for seed in seeds]
        )


def numbered(tmp_path: Path, name: str, numbers: range) -> Path:
    return write(tmp_path / name, "".join(f"line {number}\n" for number in numbers))


def exact(index: SearchIndex, query: str, top: int) -> list[tuple[str, float]]:
    return [(hit.text, hit.score) for hit in index.search(query, top=top)]


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
def test_a_graph_finds_nearly_all_and_its_scores_are_exact(tmp_path: Path, metric: Metric) -> None:
    file = numbered(tmp_path, "a.txt", range(1500))
    embedder = Random(width=384, metric=metric)
    small = index_of(tmp_path / "small", embedder, by="lines")
    large = index_of(tmp_path / "large", embedder, by="lines", exact_to=100)
    for index in (small, large):
        index.update([file])
    found = 0
    for query in range(30):
        expected = exact(small, f"query {query}", 10)
        hits = exact(large, f"query {query}", 10)
        found += len(set(expected) & set(hits))
        assert {text: score for text, score in hits if text in dict(expected)}.items() <= dict(
            expected
        ).items()
    assert found >= 0.95 * 300


@pytest.mark.parametrize("count", [2000, pytest.param(20_000, marks=pytest.mark.slow)])
def test_the_candidates_grow_until_the_recall_is_095_at_384_dimensions(tmp_path: Path, count: int) -> None:
    vectors = prepared(np.random.default_rng(0).standard_normal((count, 384)), "cosine")
    queries = prepared(np.random.default_rng(1).standard_normal((100, 384)), "cosine")

    class Stored(IndexStore):
        def keys(self) -> Any:
            return np.arange(len(vectors))

        def blocks(self) -> Any:
            for start in range(0, len(vectors), 500):
                yield np.arange(start, start + 500), vectors[start : start + 500]

        def vectors_of(self, keys: Sequence[int]) -> Any:
            return vectors[list(keys)]

    def recall(graph: VectorGraph) -> float:
        found = 0
        for query in queries:
            expected = highest(similarities(vectors, query, "cosine"), 10)
            near = graph.nearest(query, 10)
            best = near[highest(similarities(vectors[near], query, "cosine"), 10)]
            found += len(np.intersect1d(best, expected))
        return found / 1000

    graph = VectorGraph("cosine", 384, candidates=16)
    graph.update(Stored(tmp_path))
    assert recall(graph) >= 0.95
    graph._graph.expansion_search = 16
    assert recall(graph) < 0.95


def test_a_removed_vector_takes_no_place_of_a_hit(tmp_path: Path) -> None:
    class Near(Random):
        def query(self, text: str) -> Any:
            one, other = (np.random.default_rng(seed).standard_normal(self.width) for seed in (0, len(text)))
            return (one + 0.1 * other if "near" in text else other).astype(np.float32)

        def documents(self, texts: Sequence[str]) -> Any:
            return np.stack([self.query(text) for text in texts])

    index = index_of(tmp_path / "index", Near(), by="lines", exact_to=10)
    near = write(tmp_path / "near.txt", "".join(f"near {'x' * n}\n" for n in range(60)))
    index.update([near, write(tmp_path / "far.txt", "".join(f"far {'x' * n}\n" for n in range(300)))])
    assert {hit.text[:4] for hit in index.search("near", top=40)} == {"near"}
    index.remove([near])
    assert [hit.text[:3] for hit in index.search("near", top=20)] == ["far"] * 20


def test_a_graph_of_three_vectors_has_three_hits(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index", Random(), by="lines", exact_to=2)
    index.update([numbered(tmp_path, "a.txt", range(3))])
    assert len(index.search("line 1", top=5)) == 3
    assert index.search("line 1", top=5, hybrid=True)[0].text == "line 1"


def test_after_changes_a_graph_finds_what_is_there_and_nothing_else(tmp_path: Path) -> None:
    embedder = Random(metric="cosine")
    index = index_of(tmp_path / "index", embedder, by="lines", exact_to=10)
    files = [numbered(tmp_path, f"{n}.txt", range(40 * n, 40 * n + 40)) for n in range(8)]
    index.update(files[:6])
    index.search("line 1")
    index.remove([files[2]])
    index.add(files[6:])
    fresh = index_of(tmp_path / "fresh", embedder, by="lines")
    fresh.update([*files[:2], *files[3:]])
    for query in ("line 81", "line 300", "line 5"):
        assert exact(index, query, 5) == exact(fresh, query, 5)
    assert len(list((tmp_path / "index").glob("graph-*"))) == 1


def test_a_graph_is_read_again_and_a_damaged_one_built_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = numbered(tmp_path, "a.txt", range(50))
    index = index_of(tmp_path / "index", Random(), by="lines", exact_to=10)
    index.update([file])
    expected = exact(index, "line 7", 5)
    added: list[int] = []
    update = VectorGraph.update
    monkeypatch.setattr(VectorGraph, "update", lambda *given: (added.append(1), update(*given)))
    again = index_of(tmp_path / "index", Random(), by="lines", exact_to=10)
    assert exact(again, "line 7", 5) == expected
    assert added == []
    [graph] = (tmp_path / "index").glob("graph-*")
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    assert exact(index_of(tmp_path / "index", Random(), by="lines", exact_to=10), "line 7", 5) == expected
    assert added == [1]


def test_the_metric_is_that_of_our_header(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index", Random(metric="euclidean"), by="lines", exact_to=10)
    index.update([numbered(tmp_path, "a.txt", range(50))])
    graph = graph_of(index._store, "euclidean")
    assert str(graph._graph.metric).endswith("L2sq")
    assert index._store.header(HEADER)["candidates"] >= 256
