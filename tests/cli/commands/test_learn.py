"""Tests `decodery learn`: the list, a page in a pipe and on a terminal, and a page that is not there."""

from __future__ import annotations

import re
import sys

import pytest
from rich.cells import cell_len

from decodery.learn import learn_page, learn_pages
from tests.cli.conftest import Run


def test_without_a_method_the_pages_are_listed_in_the_order_of_the_index(decodery: Run) -> None:
    ran = decodery("learn")
    lines = ran.out.splitlines()
    assert [line.split()[0] for line in lines] == [page.name for page in learn_pages()]
    assert all(page.summary in line for page, line in zip(learn_pages(), lines, strict=True))


@pytest.mark.parametrize("name", [page.name for page in learn_pages()])
def test_a_pipe_gets_the_markdown_of_the_page_without_the_comment(decodery: Run, name: str) -> None:
    ran = decodery("learn", name)
    assert (ran.status, ran.err) == (0, "")
    assert ran.out == learn_page(name).text
    assert ran.out.startswith("# ")
    assert "<!--" not in ran.out


@pytest.mark.parametrize("name", [page.name for page in learn_pages()])
def test_a_terminal_gets_the_page_formatted(
    decodery: Run, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    page = learn_page(name)
    ran = decodery("learn", name)
    shown = re.sub(r"\x1b\[[\d;]*m", "", ran.out)
    assert "\x1b[" in ran.out
    assert page.title in shown
    assert "Picture: " in shown
    assert page.picture.name in shown
    assert "```" not in shown
    assert "](" not in shown
    assert ".md" not in shown
    assert "https://" in shown
    assert all(cell_len(line) <= 80 for line in shown.splitlines())


def test_a_page_that_is_not_there_is_an_error_that_names_the_nearest(decodery: Run) -> None:
    ran = decodery("learn", "samplng")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err == "decodery: there is no page 'samplng': did you mean sampling?\n"


def test_the_names_of_the_pages_complete_the_command(decodery: Run) -> None:
    assert decodery("complete", "fish", "learn", "gr").out.splitlines() == ["greedy", "grammars"]
