from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decodery.errors import ModelError, ParameterError, RequestError
from decodery.search import SearchHit, SearchIndex
from decodery.search.store import FILE
from tests.search.embedders import WordEmbedder

TEXTS = {
    "animals.md": "# Cats\n\nA cat purrs.\n\n# Dogs\n\nA dog barks at a cat.\n",
    "food.txt": "Bread and butter.\n\nSoup with noodles.\n",
    "inner/tools.txt": "A hammer and a nail.\n",
}


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    for name, text in TEXTS.items():
        write(folder / name, text)
    return folder


def write(path: Path, text: str, *, ago: float = 100.0) -> Path:
    """Writes a file whose last change was some seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    changed = path.stat().st_mtime - ago
    os.utime(path, (changed, changed))
    return path


def index_of(folder: Path, embedder: Any = None, **options: Any) -> SearchIndex:
    return SearchIndex(folder, WordEmbedder() if embedder is None else embedder, **options)


def scores(hits: list[SearchHit]) -> list[tuple[str, int, float]]:
    return [(hit.file.name, hit.line, hit.score) for hit in hits]


def test_a_query_finds_the_chunk_with_its_words(pages: Path, tmp_path: Path) -> None:
    index = index_of(tmp_path / "index")
    changes = index.update([pages])
    assert [path.name for path in changes.added] == ["animals.md", "food.txt", "tools.txt"]
    [hit, *_] = index.search("noodles soup")
    assert (hit.file, hit.line, hit.text) == (pages / "food.txt", 3, "Soup with noodles.")
    [hit, *_] = index.search("dog barks")
    assert (hit.file.name, hit.line, hit.end_line, hit.heading) == ("animals.md", 7, 7, "Dogs")


def test_five_hits_of_three_chunks_are_three(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index", by="lines")
    index.update([write(tmp_path / "a.txt", "one\ntwo\nthree\n")])
    assert len(index.search("one", top=5)) == len(index.search("one", top=5, hybrid=True)) == 3
    index.remove([tmp_path / "a.txt"])
    assert index.search("one") == index.search("one", hybrid=True) == []


def test_an_index_of_no_text_has_no_hits(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index")
    assert index.search("one") == index.search("one", hybrid=True) == []
    index.update([write(tmp_path / "a.txt", "")])
    assert index.search("one") == index.search("one", hybrid=True) == []


def test_a_file_is_removed_by_any_path_that_leads_to_it(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index")
    index.update([write(tmp_path / "a.txt", "one")])
    index.remove([tmp_path / "index" / ".." / "a.txt"])
    assert index.files == []


def test_only_changed_files_are_read_again(pages: Path, tmp_path: Path) -> None:
    embedder = WordEmbedder()
    index = index_of(tmp_path / "index", embedder)
    index.update([pages])
    embedder.read.clear()
    assert index.update([pages]) == index.update([pages]) != index.update([pages / "food.txt"])
    assert [path.name for path in index.files] == ["food.txt"]
    assert embedder.read == []
    index.update([pages])
    embedder.read.clear()
    write(pages / "food.txt", "Bread and jam.\n", ago=50)
    (pages / "inner/tools.txt").unlink()
    write(pages / "new.txt", "New.\n")
    changes = index.update([pages])
    assert [[path.name for path in part] for part in (changes.added, changes.changed, changes.removed)] == [
        ["new.txt"],
        ["food.txt"],
        ["tools.txt"],
    ]
    assert embedder.read == ["Bread and jam.", "New."]


def test_a_new_time_with_the_same_content_computes_no_vector(pages: Path, tmp_path: Path) -> None:
    embedder = WordEmbedder()
    index = index_of(tmp_path / "index", embedder)
    index.update([pages])
    embedder.read.clear()
    write(pages / "food.txt", TEXTS["food.txt"], ago=10)
    assert index.update([pages]).changed == ()
    assert embedder.read == []
    assert len(index.search("soup", top=9)) == 5


def test_a_file_that_changes_again_in_the_same_moment_is_read_again(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index")
    page = write(tmp_path / "a.txt", "old", ago=0)
    time = page.stat().st_mtime_ns
    index.update([page])
    page.write_text("new", encoding="utf-8")
    os.utime(page, ns=(time, time))
    assert index.update([page]).changed == (page,)
    assert index.search("x")[0].text == "new"


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean", "manhattan"])
def test_after_changes_the_scores_are_those_of_a_fresh_index(tmp_path: Path, metric: Any) -> None:
    names = [f"w{number}" for number in range(60)]
    files = [
        write(tmp_path / f"{name}.txt", "\n".join(" ".join(names[i : i + k + 1]) for k in range(7)))
        for i, name in enumerate(names[:20])
    ]
    index = index_of(tmp_path / "old", WordEmbedder(metric=metric), by="lines")
    index.update(files[::2])
    index.add(files)
    write(files[3], "w1 w2\n", ago=10)
    index.add([files[3]])
    index.remove(files[5:9])
    fresh = index_of(tmp_path / "fresh", WordEmbedder(metric=metric), by="lines")
    fresh.update([*files[:5], *files[9:]])
    for options in ({}, {"hybrid": True}):
        for query in ("w1 w4", "w18", "w40 w2"):
            assert scores(index.search(query, top=50, **options)) == scores(
                fresh.search(query, top=50, **options)
            )


def test_a_hybrid_search_finds_what_either_ranking_finds(pages: Path, tmp_path: Path) -> None:
    class Blind(WordEmbedder):
        def query(self, text: str) -> Any:
            return np.ones(self.width, np.float32)

    index = index_of(tmp_path / "index", Blind())
    index.update([pages])
    assert index.search("hammer")[0].file.name == "animals.md"  # All similarities are the same.
    best = index.search("hammer", hybrid=True)[0]
    assert best.file.name == "tools.txt"
    assert best.keyword_score is not None
    assert best.keyword_score > 0
    assert best.score == pytest.approx(1 / (60 + 1) + 1 / (60 + 5))


def test_a_reranker_orders_the_best_by_its_own_scores(pages: Path, tmp_path: Path) -> None:
    class Ranked:
        def __init__(self, index: int, score: float) -> None:
            self.index, self.score = index, score

    class Shortest:
        def rerank(self, query: str, documents: Any, *, long: Any) -> list[Ranked]:
            order = sorted(range(len(documents)), key=lambda place: len(documents[place]))
            return [Ranked(place, -len(documents[place])) for place in order]

    index = index_of(tmp_path / "index")
    index.update([pages])
    hits = index.search("dog barks", top=2, reranker=Shortest())
    assert [hit.text for hit in hits] == ["A cat purrs.", "Bread and butter."]
    assert [hit.score for hit in hits] == [-17, -17]


def test_an_index_of_another_model_or_chunking_is_one_clear_error(pages: Path, tmp_path: Path) -> None:
    index_of(tmp_path / "index").update([pages])
    for embedder, options, message in [
        (WordEmbedder(name="others"), {}, r"was made with model 'words', not 'others': search it with"),
        (WordEmbedder(width=8), {}, r"was made with width 16, not 8"),
        (WordEmbedder(metric="dot"), {}, r"was made with metric 'cosine', not 'dot'"),
        (WordEmbedder(limit=30), {}, r"was made with tokens of a chunk 40, not 30"),
        (WordEmbedder(), {"by": "lines"}, r"was made with chunks 'auto', not 'lines'"),
    ]:
        with pytest.raises(ModelError, match=message):
            index_of(tmp_path / "index", embedder, **options)


def test_an_index_keeps_the_chunks_that_it_was_made_with(tmp_path: Path) -> None:
    page = write(tmp_path / "a.txt", "one\ntwo\n")
    index_of(tmp_path / "index", by="lines").update([page])
    index = index_of(tmp_path / "index")
    index.update([write(page, "one\ntwo\nthree\n", ago=5)])
    assert len(index) == 3


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_is_refused(tmp_path: Path, wrong: float) -> None:
    class Broken(WordEmbedder):
        def query(self, text: str) -> Any:
            return np.full(self.width, wrong, np.float32) if "bad" in text else super().query(text)

    page = write(tmp_path / "a.txt", "good\nbad\n")
    index = index_of(tmp_path / "index", Broken(), by="lines")
    with pytest.raises(ModelError, match="the vector of line 2 is not finite"):
        index.update([page])
    write(page, "good\nfine\n", ago=5)
    index.update([page])
    assert [hit.text for hit in index.search("good")] == ["good", "fine"]
    with pytest.raises(ModelError, match="the query's vector is not finite"):
        index.search("bad")


KILLED = """
import os, signal, sys
from pathlib import Path
from decodery.search import SearchIndex
from decodery.search import writing
from tests.search.embedders import WordEmbedder
writing.CHUNKS_AT_ONCE = 2
class Dies(WordEmbedder):
    def documents(self, texts):
        if len(self.read) >= 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().documents(texts)
SearchIndex(Path(sys.argv[1]), Dies(), by="lines").update([Path(sys.argv[2])])
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no such signal")
def test_a_killed_process_leaves_the_old_content_and_the_next_goes_on(tmp_path: Path) -> None:
    page = write(tmp_path / "a.txt", "old one\nold two\n")
    index_of(tmp_path / "index", by="lines").update([page])
    write(page, "".join(f"new {number}\n" for number in range(8)), ago=5)
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path / "index", page], cwd=Path.cwd())
    assert killed.returncode == -signal.SIGKILL
    embedder = WordEmbedder()
    index = index_of(tmp_path / "index", embedder)
    assert sorted(hit.text for hit in index.search("one")) == ["old one", "old two"]
    index.update([page])
    assert embedder.read == [f"new {number}" for number in range(4, 8)]
    fresh = index_of(tmp_path / "fresh", by="lines")
    fresh.update([page])
    assert scores(index.search("new 3")) == scores(fresh.search("new 3"))


def test_what_a_killed_process_began_is_dropped_if_the_file_changes_back(tmp_path: Path) -> None:
    page = write(tmp_path / "a.txt", "old\n")
    time = page.stat().st_mtime
    index_of(tmp_path / "index", by="lines").update([page])
    write(page, "".join(f"new {number}\n" for number in range(8)), ago=5)
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "index", page], cwd=Path.cwd())
    write(page, "old\n")
    os.utime(page, (time, time))
    index = index_of(tmp_path / "index")
    index.update([page])
    assert index._store.started() == {}
    assert [hit.text for hit in index.search("new")] == ["old"]


def test_several_processes_write_one_index(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{n}.txt", f"page {n}\n") for n in range(12)]

    def work(part: int) -> None:
        with index_of(tmp_path / "index", by="lines") as index:
            for file in files[part::3]:
                index.add([file])
                assert index.search("page")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(work, range(3)))
    assert index_of(tmp_path / "index").files == sorted(files)


def test_a_search_sees_one_state_while_another_process_writes(pages: Path, tmp_path: Path) -> None:
    index, other = index_of(tmp_path / "index"), index_of(tmp_path / "index")
    index.update([pages])
    assert len(other.search("cat", top=9)) == 5
    with index._store.transaction():
        index._store._delete([file.id for file in index._store.files().values()])
        assert len(other.search("cat", top=9)) == 5
        index._store.set_header("version", 99)
    assert other.search("cat", hybrid=True) == []


@pytest.mark.parametrize("damage", ["header", "middle", "end", "bit of a vector", "format"])
def test_a_damaged_index_is_one_clear_line(tmp_path: Path, damage: str) -> None:
    page = write(tmp_path / "a.txt", "".join(f"page {n} of many\n" for n in range(700)))
    index = index_of(tmp_path / "index", by="lines")
    index.update([page])
    index.close()
    file = tmp_path / "index" / FILE
    data = bytearray(file.read_bytes())
    if damage == "header":
        data[:16] = b"nothing at all.."
    elif damage == "middle":
        data[4096:-4096] = bytes(len(data) - 8192)
    elif damage == "end":
        del data[len(data) // 2 :]
    elif damage == "bit of a vector":
        vector = WordEmbedder().query("page 5 of many").tobytes()
        data[data.index(vector) + 9] ^= 1
    else:
        with sqlite3.connect(file) as database:
            database.execute("UPDATE header SET value = '7' WHERE name = 'format'")
        database.close()
        data = bytearray(file.read_bytes())
    file.write_bytes(data)
    message = "has format 7" if damage == "format" else r"is damaged \(.*\): delete the folder"
    with pytest.raises(ModelError, match=message) as caught:
        index_of(tmp_path / "index").search("page")
    assert "\n" not in str(caught.value)


def test_what_is_no_text_is_left_out_of_folders_and_refused_by_name(pages: Path, tmp_path: Path) -> None:
    (pages / "picture.png").write_bytes(b"\x89PNG\0\0")
    (pages / "latin.txt").write_bytes(b"caf\xe9")
    write(pages / "drawing.svg", "<svg/>")
    write(pages / ".hidden/a.txt", "hidden")
    write(pages / "empty.txt", "")
    index = index_of(tmp_path / "index")
    index.update([pages])
    assert sorted(path.name for path in index.files) == ["animals.md", "empty.txt", "food.txt", "tools.txt"]
    for name, message in [
        ("picture.png", "is not a text file"),
        ("latin.txt", r"is not UTF-8 text \(byte 0xe9 at offset 3\)"),
        ("missing", "there is no file or folder"),
    ]:
        with pytest.raises(RequestError, match=message):
            index.update([pages / name])
    index.update([pages / ".hidden", pages / "drawing.svg"])
    assert [path.name for path in index.files] == ["a.txt", "drawing.svg"]
    with pytest.raises(RequestError, match="is not in the index"):
        index.remove([pages / "food.txt"])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"top": 0}, ParameterError),
        ({"top": True}, ParameterError),
        ({"query": " "}, RequestError),
    ],
)
def test_wrong_arguments_are_errors(tmp_path: Path, arguments: dict[str, Any], error: type) -> None:
    with pytest.raises(error):
        index_of(tmp_path / "index").search(**{"query": "x", **arguments})


def test_unknown_chunks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="by must be one of auto, lines, paragraphs, sections"):
        index_of(tmp_path / "index", by="words")
    assert not (tmp_path / "index").exists()
