"""Tests `decodery search`: its hits, its index, and its errors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from decodery import LLM
from decodery.search import SearchIndex
from decodery.search.text_vectors import LateEmbedder
from tests.cli.conftest import Run
from tests.encoding.colbert_folders import colbert_folder
from tests.encoding.folders import encoder_folder, sentence_folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sentence_folder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with pages the current one; the cache is a folder beside it."""
    folder = tmp_path / "here"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs/dogs.md").write_text("# Dogs\n\nthe dog sat\n\n## More\n\nand the dog\n")
    (folder / "docs/bank.txt").write_text("bank of the river\n\nand money\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    return folder


def read(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_json_has_a_line_for_each_hit_of_the_index(
    decodery: Run, encoder: str, pages: Path, tmp_path: Path
) -> None:
    index = SearchIndex(tmp_path / "own", LLM(encoder))
    index.update([pages / "docs"])
    hits = index.search("the dog sat", top=3)
    found = read(decodery("search", "the dog sat", "docs", "-m", encoder, "--top", "3", "--json").out)
    assert [one["rank"] for one in found] == [1, 2, 3]
    assert [one["file"] for one in found] == [str(hit.file.relative_to(pages)) for hit in hits]
    assert [one["score"] for one in found] == [hit.score for hit in hits]
    names = {"rank", "file", "line", "end_line", "heading", "text", "score", "similarity"}
    assert {tuple(one) for one in found} == {tuple(found[0])}
    assert set(found[0]) == names


def test_the_table_has_place_score_heading_and_text(decodery: Run, encoder: str, pages: Path) -> None:
    ran = decodery("search", "the dog sat", "docs/dogs.md", "-m", encoder)
    [first, second] = sorted(line.split(maxsplit=2) for line in ran.out.splitlines())
    assert (first[0], first[2]) == ("docs/dogs.md:3", "Dogs: the dog sat")
    assert (second[0], second[2]) == ("docs/dogs.md:7", "Dogs > More: and the dog")


def test_on_a_terminal_texts_end_at_its_width(
    decodery: Run, encoder: str, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pages / "long.txt").write_text("the dog " * 20)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    [line] = decodery("search", "dog", "long.txt", "-m", encoder).out.splitlines()
    assert line.endswith("…")
    assert len(line) == 79


def test_an_index_in_the_cache_is_used_again(
    decodery: Run, encoder: str, pages: Path, tmp_path: Path
) -> None:
    arguments = ("search", "dog", "docs", "-m", encoder, "--json")
    ran = decodery(*arguments)
    assert ran.err == "decodery: reading files\n"
    assert decodery(*arguments).err == ""
    assert decodery(*arguments, "--by", "lines").out != ran.out
    assert len(list((tmp_path / "cache/search").iterdir())) == 2


def test_a_named_index_holds_its_files_and_is_searched_without_them(
    decodery: Run, encoder: str, pages: Path
) -> None:
    arguments = ("--index", "index", "-m", encoder, "--json", "--by", "lines")
    found = decodery("search", "dog", "docs", *arguments).out
    (pages / "docs/dogs.md").unlink()
    assert decodery("search", "dog", *arguments).out == found
    files = {one["file"] for one in read(decodery("search", "dog", "docs", *arguments).out)}
    assert files == {"docs/bank.txt"}


def test_an_index_of_another_model_is_one_clear_line(
    decodery: Run, encoder: str, pages: Path, tmp_path: Path
) -> None:
    other = str(sentence_folder(tmp_path / "other", seed=1))
    decodery("search", "dog", "docs", "--index", "index", "-m", encoder)
    ran = decodery("search", "dog", "docs", "--index", "index", "-m", other)
    assert ran.status == 1
    [line] = ran.err.splitlines()
    assert line.startswith("decodery: the index index was made with model ")
    assert decodery("search", "dog", "--index", "index", "-m", encoder).status == 0


def test_hybrid_hits_have_the_scores_of_both(decodery: Run, encoder: str, pages: Path) -> None:
    pytest.importorskip("bm25s")
    [first, *_] = read(decodery("search", "money", "docs", "-m", encoder, "--hybrid", "--json").out)
    assert first["text"] == "and money"
    assert first["keyword_score"] > 0
    assert first["score"] > 1 / 61


def test_a_reranker_orders_the_hits(decodery: Run, encoder: str, pages: Path, tmp_path: Path) -> None:
    cross = encoder_folder(tmp_path / "cross", "BertForSequenceClassification", num_labels=1)
    for folder in map(str, (cross, colbert_folder(tmp_path / "colbert"))):
        found = read(decodery("search", "dog", "docs", "-m", encoder, "--rerank", folder, "--json").out)
        texts = [f"{one['heading']}\n{one['text']}" if one["heading"] else one["text"] for one in found]
        ranked = LLM(folder).rerank("dog", texts, long="cut")
        assert [one["score"] for one in found] == [one.score for one in ranked]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["dog"], 2, "name the files to search, or with --index a folder that holds an index of them"),
        ([" ", "docs"], 2, "the query is empty: give some text"),
        (["dog", "docs", "--top", "0"], 2, "top must be 1 or more, not 0"),
        (["dog", "docs", "--by", "words"], 2, "by must be "),
        (["dog", "docs", "missing"], 1, "there is no file or folder missing"),
        (["dog", "--index", "nothing"], 1, "nothing holds no index: name the files to search"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    decodery: Run, pages: Path, arguments: list[str], status: int, message: str
) -> None:
    ran = decodery("search", *arguments, "-m", "no/such-model")
    assert ran.status == status
    assert ran.err.startswith(f"decodery: {message}")


def test_a_missing_library_is_said_before_files_are_read(
    decodery: Run, encoder: str, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    ran = decodery("search", "dog", "docs", "-m", "no/such-model", "--hybrid")
    assert ran.status == 1
    assert 'run pip install "decodery[search]"' in ran.err


def test_files_without_text_have_no_hits(decodery: Run, encoder: str, pages: Path) -> None:
    (pages / "empty.txt").write_text("\n")
    ran = decodery("search", "dog", "empty.txt", "-m", encoder)
    assert (ran.status, ran.out) == (0, "")
    assert "there is no text to search" in ran.err


def test_late_chunking_reads_the_parts_of_a_file_together(
    decodery: Run, encoder: str, pages: Path, tmp_path: Path
) -> None:
    with SearchIndex(tmp_path / "own", LateEmbedder(LLM(encoder))) as index:
        index.update([pages / "docs"])
        hits = index.search("the dog sat", top=3)
    flags = ("search", "the dog sat", "docs", "-m", encoder, "--top", "3", "--json")
    found = read(decodery(*flags, "--late").out)
    assert [one["score"] for one in found] == [hit.score for hit in hits]
    # An index that is kept is of one of them alone.
    for first, second, how in (((), ("--late",), "without"), (("--late",), (), "with")):
        kept = ("search", "dog", "docs", "-m", encoder, "--index", f"kept-{how}")
        assert decodery(*kept, *first).status == 0
        ran = decodery(*kept, *second)
        assert ran.status == 1
        assert f"was made {how} late chunking (--late): search it" in ran.err
    # The index of chunks that are read apart is beside it.
    assert [one["score"] for one in read(decodery(*flags).out)] != [hit.score for hit in hits]
