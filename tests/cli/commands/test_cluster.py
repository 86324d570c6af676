"""Tests `decodery cluster`: its groups, its page, and its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.encoding.folders import sentence_folder

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(sentence_folder(tmp_path_factory.mktemp("encoder")))


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes a folder with a page the current one; the cache is a folder beside it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DECODERY_CACHE", str(tmp_path / "cache"))
    page = tmp_path / "here/page.txt"
    page.write_text("the dog sat\nthe cat sat\nbank of the river\nmoney and bank\nthe river\n")
    return page


def test_each_text_is_in_one_group(decodery: Run, encoder: str, page: Path) -> None:
    arguments = ("cluster", "page.txt", "-m", encoder, "--by", "lines", "--groups", "2")
    ran = decodery(*arguments, "--json")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert sorted(one["text"] for one in found) == sorted(page.read_text().splitlines())
    assert {one["group"] for one in found} == {1, 2}
    assert all(page.read_text().splitlines()[one["line"] - 1] == one["text"] for one in found)
    table = decodery(*arguments).out.splitlines()
    assert [int(line.split()[1]) for line in table] == [
        sum(one["group"] == group for one in found) for group in (1, 2)
    ]
    assert decodery(*arguments, "--json", "--seed", "0").out == ran.out


def test_html_writes_a_page_with_a_point_for_each_text(decodery: Run, encoder: str, page: Path) -> None:
    ran = decodery("cluster", "page.txt", "-m", encoder, "--by", "lines", "--html", "map.html")
    assert ran.status == 0
    written = (page.parent / "map.html").read_text(encoding="utf-8")
    assert written.count("<circle") == 5
    assert "page.txt:4\nmoney and bank" in written


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["page.txt", "--groups", "0"], 2, "groups must be 1 or more, not 0"),
        (["missing"], 1, "there is no file or folder missing"),
        (["page.txt", "--html", "no/map.html"], 1, "no/map.html cannot be written: there is no folder no"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    decodery: Run, page: Path, arguments: list[str], status: int, message: str
) -> None:
    ran = decodery("cluster", *arguments, "-m", "no/such-model")
    assert (ran.status, ran.err) == (status, f"decodery: {message}\n")


@pytest.mark.parametrize("kind", ["bow", "tfidf", "ppmi"])
def test_vectors_that_need_no_model_group_texts_too(decodery: Run, page: Path, kind: str) -> None:
    ran = decodery("cluster", "page.txt", "--by", "lines", "--groups", "2", "--with", kind, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = [json.loads(line) for line in ran.out.splitlines()]
    assert sorted(one["text"] for one in found) == sorted(page.read_text().splitlines())
    assert not (page.parent.parent / "cache").exists()
    for flag in ("--index", "-m"):
        ran = decodery("cluster", "page.txt", "--with", kind, flag, "x")
        assert ran.status == 2
        assert "has no meaning with --with" in ran.err
    ran = decodery("cluster", "page.txt", "--with", "odd")
    assert ran.status == 2
    assert "with must be one of bow, tfidf, ppmi, not 'odd'" in ran.err


def test_vectors_that_need_no_model_search_files_too(decodery: Run, page: Path) -> None:
    ran = decodery("search", "the river bank", "page.txt", "--by", "lines", "--with", "tfidf", "--json")
    assert (ran.status, ran.err) == (0, "")
    first = json.loads(ran.out.splitlines()[0])
    assert (first["line"], first["text"]) == (3, "bank of the river")
    ran = decodery("search", "xyzzy", "page.txt", "--with", "tfidf")
    assert (ran.status, ran.out) == (1, "")
    assert "no word of the query is in the files" in ran.err
    for flags in (["--hybrid"], ["--rerank", "x"], ["--index", "x"], ["-m", "x"]):
        ran = decodery("search", "river", "page.txt", "--with", "tfidf", *flags)
        assert ran.status == 2
        assert "has no meaning with --with" in ran.err


def test_vectors_that_need_no_model_classify_lines_too(decodery: Run, page: Path) -> None:
    examples = [
        {"text": f"the {a} is {good}", "label": label}
        for a in ("dog", "cat", "book")
        for good, label in (("good and fine", "praise"), ("bad and dull", "complaint"))
    ]
    (page.parent / "labelled.jsonl").write_text("".join(json.dumps(one) + "\n" for one in examples))
    flags = ("classify", "--examples", "labelled.jsonl", "--with", "bow")
    ran = decodery(*flags, stdin=b"a fine day\na dull day\n")
    assert ran.status == 0
    assert "accuracy 1.000 in 3-fold cross-validation over 6 examples" in ran.err
    assert [json.loads(line)["label"] for line in ran.out.splitlines()] == ["praise", "complaint"]
    ran = decodery(*flags, "--out", "out.jsonl", stdin=b"a fine day\n")
    assert json.loads((page.parent / "out.jsonl").read_text())["label"] == "praise"
    ran = decodery("classify", "--with", "bow", stdin=b"a\n")
    assert ran.status == 2
    assert "--with needs --examples" in ran.err
    for flag, value in (
        ("--labels", "a,b"),
        ("--multi-label", "yes"),
        ("--entailment", "a"),
        ("--contradiction", "0"),
        ("--long", "cut"),
    ):
        ran = decodery(*flags, flag, value, stdin=b"a\n")
        assert ran.status == 2
        assert f"{flag} has no meaning with --with" in ran.err
