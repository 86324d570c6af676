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
